/* The first process of a guest that is a hypervisor itself: makes a machine with KVM, lets it touch
 * pages, and tells over the serial line where Linux says that the machine's memory lies.
 *
 * Lines that go out: "@slot GPA PAGES", "@page FIRST COUNT FRAME" (guest-physical page, and Linux's frame,
 * in hex), "@gva GVA GPA" (what the machine's own tables say), "@ready nested".
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define MEMORY (16ul << 20)
#define LARGE (2ul << 20)
#define ROOT 0x1000ul
#define CODE 0x100000ul
#define LIST 0x101000ul

static void wake(int number)
{
}

static char *memory;
static uint64_t next_table = 0x2000, *list;

static void guest(volatile uint64_t *touch)
{
    for (; *touch; touch++)
        if (*touch & 1)
            *(volatile char *)(*touch & ~1ul) = 1;
        else
            (void)*(volatile char *)*touch;
    for (;;)
        __asm__ volatile("pause");
}

static void map(uint64_t gva, uint64_t gpa, int level, uint64_t rights, int write)
{
    uint64_t table = ROOT, *entry;
    for (int at = 4; at > level; at--) {
        entry = (uint64_t *)(memory + table) + (gva >> (3 + 9 * at) & 511);
        if (!*entry) {
            *entry = next_table | 7;
            next_table += 4096;
        }
        table = *entry & ~0xffful;
    }
    entry = (uint64_t *)(memory + table) + (gva >> (3 + 9 * level) & 511);
    *entry = gpa | rights | (level > 1 ? 0x80 : 0);
    *list++ = gva | write;
    printf("@gva %lx %lx %lx\n", gva, gpa, 4096ul << (9 * (level - 1)));
}

static void load(const char *path, const char *options)
{
    int file = open(path, O_RDONLY);
    if (syscall(SYS_finit_module, file, options, 0))
        perror(path);
    close(file);
}

static void tell_pages(void)
{
    int file = open("/proc/self/pagemap", O_RDONLY);
    for (uint64_t page = 0; page < MEMORY / 4096; page++) {
        uint64_t word = 0;
        pread(file, &word, 8, ((uintptr_t)memory / 4096 + page) * 8);
        if (word >> 63)
            printf("@page %lx 1 %lx\n", page, word & ((1ul << 55) - 1));
    }
    close(file);
}

int main(void)
{
    mkdir("/proc", 0755);
    mount("proc", "/proc", "proc", 0, NULL);
    load("/irqbypass.ko", "");
    load("/kvm.ko", "");
    load("/ccp.ko", "");
    load("/kvm-amd.ko", "");
    mknod("/dev/kvm", S_IFCHR | 0600, makedev(10, 232));
    int kvm = open("/dev/kvm", O_RDWR);
    int vm = ioctl(kvm, KVM_CREATE_VM, 0);
    memory = mmap((void *)0x100000000, MEMORY, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    madvise(memory, LARGE, MADV_NOHUGEPAGE);          /* tables and code: small pages */
    madvise(memory + LARGE, 4 * LARGE, MADV_HUGEPAGE);
    madvise(memory + 5 * LARGE, 3 * LARGE, MADV_NOHUGEPAGE);
    struct kvm_userspace_memory_region region = {0, 0, 0, MEMORY, (uintptr_t)memory};
    ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region);
    list = (uint64_t *)(memory + LIST);
    map(CODE, CODE, 1, 7, 0);
    map(LIST, LIST, 1, 7, 0);
    for (int page = 0; page < 8; page++) /* small in small, scattered */
        map(0x400000 + page * 0x1000, 5 * LARGE + page * 0x3000, 1, page & 1 ? 7 : 5, page & 1);
    for (int page = 0; page < 8; page++) /* small in large */
        map(0x7f0000000000 + page * 0x5000, LARGE + page * 0x7000, 1, 7, 1);
    map(0x40000000, 2 * LARGE, 2, 7, 1);           /* large in large */
    for (int page = 1; page < 9; page++)           /* large in small, some of it touched */
        *list++ = 0x40200000ul + page * 0x11000 + (page & 1);
    map(0x40200000, 6 * LARGE, 2, 7, 1);
    map(0xffff888000000000, 0, 3, 3, 0);           /* all of it, supervisor's, 1 GiB */
    memcpy(memory + CODE, guest, 256);
    int cpu = ioctl(vm, KVM_CREATE_VCPU, 0);
    int size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    struct kvm_run *run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, cpu, 0);
    struct {
        struct kvm_cpuid2 head;
        struct kvm_cpuid_entry2 entries[100];
    } known = {{100}};
    ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &known);
    ioctl(cpu, KVM_SET_CPUID2, &known);
    struct kvm_sregs sregs;
    ioctl(cpu, KVM_GET_SREGS, &sregs);
    sregs.cr3 = ROOT;
    sregs.cr4 = 0x20;
    sregs.cr0 = 0x80010033;
    sregs.efer = 0xd00;
    struct kvm_segment code = {0, 0xffffffff, 8, 11, 1, 0, 0, 1, 1, 1}, data = code;
    code.l = 1;
    code.db = 0;
    data.type = 3;
    data.selector = 16;
    sregs.cs = code;
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
    if (ioctl(cpu, KVM_SET_SREGS, &sregs))
        perror("sregs");
    struct kvm_regs regs = {.rip = CODE, .rdi = LIST, .rsp = CODE + 0x800, .rflags = 2};
    ioctl(cpu, KVM_SET_REGS, &regs);
    struct sigaction action = {.sa_handler = wake};
    sigaction(SIGALRM, &action, NULL);
    alarm(8);
    for (int told = 0;;) {
        int status = ioctl(cpu, KVM_RUN, 0);
        if (status && errno == EINTR && !told++) {
            tell_pages(); /* all is touched by now, and nothing moves */
            printf("@ready nested\n");
        } else {
            printf("@exit %d %d %d\n", status, errno, run->exit_reason);
            sleep(100);
        }
        fflush(stdout);
    }
}
