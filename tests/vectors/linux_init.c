/* The first process of the guest: makes a process with mappings of every kind, tells over the serial
 * line what the kernel says about it (maps, pagemap), and lets it spin until the next line comes in.
 *
 * Lines that go out begin with "@": "@maps LINE", "@page FIRST COUNT FRAME PRESENT" (page numbers in
 * hex, runs of pages whose frames follow one another), "@ready NAME". Whatever comes in goes on.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/utsname.h>
#include <unistd.h>

#define SPIN 0x5a5a5a5a5000ul /* where the loop stands: the other side knows the process by it */
#define AREA 0x100000000ul
#define LARGE (2ul << 20)
#define HUGE (1ul << 30)
#define MAP_HUGE_1GB (30 << 26)

static volatile char sum;
static struct utsname system_name;

static char *map(uint64_t at, size_t size, int rights, int flags, int file)
{
    char *place = mmap((void *)at, size, rights, MAP_FIXED_NOREPLACE | flags, file, 0);
    if (place == MAP_FAILED) {
        printf("@none %lx\n", at);
        return NULL;
    }
    return place;
}

/* Memory of its own with those rights in the end, every other page of it touched. */
static void area(uint64_t at, size_t pages, int rights)
{
    char *place = map(at, pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    if (!place)
        return;
    for (size_t page = 0; page < pages; page += 2)
        place[page * 4096] = 1;
    mprotect(place, pages * 4096, rights);
}

static void touch(char *place, size_t size, int write)
{
    for (size_t at = 0; place && at < size; at += 4096)
        if (write)
            place[at] = 1;
        else
            sum += place[at];
}

static void mapper(int told, int kernel)
{
    static const unsigned char user[] = {0xf3, 0x90, 0xeb, 0xfc};           /* pause; jmp */
    static const unsigned char calls[] = {0xb8, 39, 0, 0, 0, 0x0f, 5, 0xeb, 0xf7}; /* getpid; jmp */
    char *place;
    for (int rights = 0; rights < 8; rights++)
        area(AREA + rights * 0x10000, 9, rights);
    touch(map(AREA + 0x100000, 5 * 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1), 5 * 4096, 0);
    touch(map(AREA + 0x110000, 5 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1),
          4 * 4096, 1);
    int file = open("/init", O_RDONLY);
    touch(map(AREA + 0x120000, 4 * 4096, PROT_READ, MAP_SHARED, file), 4 * 4096, 0);
    touch(map(AREA + 0x130000, 4 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, file), 2 * 4096, 1);
    place = map(AREA + 0x10000000, 3 * LARGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    if (place)
        madvise(place, 3 * LARGE, MADV_HUGEPAGE);
    touch(place, 3 * LARGE, 1);
    if (place) /* a large page whose rights differ in the middle is broken up */
        mprotect(place + LARGE + 0x10000, 0x8000, PROT_READ);
    touch(map(AREA + 0x20000000, LARGE, PROT_READ | PROT_WRITE,
              MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1), LARGE, 1);
    touch(map(AREA + 2 * HUGE, HUGE, PROT_READ | PROT_WRITE,
              MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_HUGE_1GB, -1), 4096, 1);
    touch(map(0xabcdef12345000ul, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1),
          3 * 4096, 1); /* only where addresses have 57 bits */
    place = map(AREA + 0x140000, 2 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    touch(place, 2 * 4096, 1);
    long key = syscall(SYS_pkey_alloc, 0, 0); /* bits 62:59 of the entry */
    if (key > 0)
        syscall(SYS_pkey_mprotect, place, 4096, PROT_READ | PROT_WRITE, key);
    area(SPIN, 1, PROT_READ | PROT_WRITE);
    if (kernel)
        memcpy((void *)SPIN, calls, sizeof calls);
    else
        memcpy((void *)SPIN, user, sizeof user);
    mprotect((void *)SPIN, 4096, PROT_READ | PROT_EXEC);
    malloc(100000);
    fflush(stdout);
    write(told, "r", 1);
    ((void (*)(void))SPIN)();
}

static void tell_pages(int pid)
{
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%d/maps", pid);
    FILE *maps = fopen(path, "r");
    snprintf(path, sizeof path, "/proc/%d/pagemap", pid);
    int pagemap = open(path, O_RDONLY);
    while (maps && fgets(line, sizeof line, maps)) {
        uint64_t first, end, word, run = 0, run_first = 0, run_frame = 0;
        printf("@maps %s", line);
        if (sscanf(line, "%lx-%lx", &first, &end) != 2 || first >> 63)
            continue;
        for (uint64_t page = first >> 12; page <= end >> 12; page++) {
            word = 0;
            if (page < end >> 12 && pread(pagemap, &word, 8, page * 8) != 8)
                word = 0;
            uint64_t frame = word & ((1ul << 55) - 1), present = word >> 63;
            if (run && (!present || frame != run_frame + run)) {
                printf("@page %lx %lx %lx\n", run_first, run, run_frame);
                run = 0;
            }
            if (present && !run) {
                run_first = page;
                run_frame = frame;
            }
            run += present;
        }
    }
    fclose(maps);
    close(pagemap);
}

static void show(const char *name, int kind)
{
    int ends[2];
    char byte;
    pipe(ends);
    int pid = fork();
    if (pid == 0) {
        if (kind < 2)
            mapper(ends[1], kind);
        execl("/bin/busybox", "sh", "-c", "a=0; echo @started; while :; do a=$((a+1)); done", NULL);
    }
    if (kind < 2)
        read(ends[0], &byte, 1);
    else
        sleep(3);
    tell_pages(pid);
    uname(&system_name);
    printf("@linux %s %s\n", system_name.release, system_name.version);
    printf("@ready %s\n", name);
    fflush(stdout);
    read(0, &byte, 1);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

int main(void)
{
    mkdir("/proc", 0755);
    mkdir("/sys", 0755);
    mount("proc", "/proc", "proc", 0, NULL);
    mount("sysfs", "/sys", "sysfs", 0, NULL);
    int pages = open("/proc/sys/vm/nr_hugepages", O_WRONLY);
    write(pages, "2", 1);
    close(pages);
    show("user", 0);
    show("kernel", 1);
    show("shell", 2);
    printf("@done\n");
    fflush(stdout);
    reboot(RB_AUTOBOOT);
    return 0;
}
