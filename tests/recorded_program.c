/* A program without a library, so that a recorder sees nothing but what stands here. */
typedef unsigned long word;

static word call(word number, word a, word b, word c)
{
    word result;
    register word r10 __asm__("r10") = 8;
    __asm__ volatile("syscall" : "=a"(result) : "0"(number), "D"(a), "S"(b), "d"(c), "r"(r10)
                     : "rcx", "r11", "memory");
    return result;
}

enum { READ = 0, WRITE = 1, CLOSE = 3, SIGACTION = 13, FORK = 57, EXECVE = 59, EXIT = 60, WAIT = 61,
       KILL = 62, GETPID = 39, SETSID = 112 };

static volatile word table[1024];

static void work(word turns)
{
    for (word i = 0; i < turns; i++)
        table[i & 1023] += i;
}

static void say(const char *text, word to)
{
    word length = 0;
    while (text[length])
        length++;
    call(WRITE, to, (word)text, length);
}

static word ignore[4] = {1, 0x04000000, 0, 0};

__attribute__((used)) static void run(word *stack)
{
    char **arguments = (char **)(stack + 1);
    char **environment = (char **)(stack + 1 + stack[0] + 1);
    word turns = 0;
    char letter;
    for (const char *digit = arguments[2]; stack[0] > 2 && *digit >= '0' && *digit <= '9'; digit++)
        turns = turns * 10 + *digit - '0';
    switch (arguments[1][0]) {
    case 'w': work(turns); break;                                 /* work */
    case 'e': for (;;) work(1000);                                /* endless */
    case 'l': for (word i = 0; i < turns; i++) {                  /* locked, string, vector, page ends */
                  __asm__ volatile("lock addq %1, %0" : "+m"(table[3]) : "r"(i));
                  __asm__ volatile("addq $1, %0" : "+m"(table[5]));
                  __asm__ volatile("movups %%xmm0, (%0)" : : "r"(&table[8]) : "memory");
                  __asm__ volatile("movq %%rax, (%0)" : : "r"(((word)&table[512] & -4096ul) - 3) : "memory");
                  void *to = (void *)&table[64]; const void *from = (void *)&table[128]; word n = 3;
                  __asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
              } break;
    case 'x': work(10); call(EXIT, turns, 0, 0); break;           /* exit status */
    case 's': work(10); *(volatile word *)8 = 1; break;           /* segmentation fault */
    case 'i': call(SIGACTION, 15, (word)ignore, 0); for (;;) work(1000); /* ignores SIGTERM */
    case 'c': for (word d = 0; d < turns; d++) call(CLOSE, d, 0, 0); work(1000); break;
    case 'a': say(arguments[2], 1); break;                        /* argument */
    case 'v': while (*environment) { say(*environment++, 1); say("\n", 1); } break;
    case 'p': while (call(READ, 0, (word)&letter, 1) == 1) call(WRITE, 1, (word)&letter, 1);
              say("done", 2); break;                              /* pass on */
    case 'f': if (call(FORK, 0, 0, 0) == 0) { work(2 * turns); call(EXIT, 0, 0, 0); }
              work(turns); call(WAIT, (word)-1, 0, 0); break;     /* fork */
    case 'r': if (call(FORK, 0, 0, 0) == 0) {                     /* closes all, then runs another */
                  for (word d = 0; d < 70000; d += d < 4096 ? 1 : 997) call(CLOSE, d, 0, 0);
                  arguments[1] = "w";
                  call(EXECVE, (word)arguments[0], (word)arguments, (word)environment);
              }
              call(WAIT, (word)-1, 0, 0); break;
    case 'd': if (call(FORK, 0, 0, 0)) break;                     /* daemon */
              call(SETSID, 0, 0, 0);
              if (call(FORK, 0, 0, 0)) break;
              for (;;) work(1000);
    }
    call(EXIT, 0, 0, 0);
}

__asm__(".globl _start\n_start: mov %rsp, %rdi\nand $-16, %rsp\ncall run\n");
