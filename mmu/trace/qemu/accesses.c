/* A plugin of QEMU's (https://www.qemu.org/docs/master/devel/tcg-plugins.html) that tells every
 * instruction fetch, load and store. The declarations are those parts of the documented interface
 * that have been the same since its first version.
 *
 * Records go into memory that is shared with the recorder, which a program that closes all
 * descriptors cannot take away, and in which the last ones are found even if the program was killed:
 *
 *     8 words   the recorder's wish to end; sequence of the next full slot
 *     slots     of SLOT_WORDS each: state, thread, records, sequence, 4 unused; the records
 *
 * A thread fills a slot, then takes another; the recorder empties full ones in their sequence. A
 * record is address << 16 | bytes << 2 | kind (0 read, 1 write, 2 fetch).
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef void (*on_vcpu)(uint64_t id, unsigned vcpu);
typedef void (*on_block)(uint64_t id, struct qemu_plugin_tb *block);
typedef void (*on_instruction)(unsigned vcpu, void *data);
typedef void (*on_access)(unsigned vcpu, uint32_t info, uint64_t address, void *data);
enum { NO_REGISTERS = 0, LOADS_AND_STORES = 3 };

void qemu_plugin_register_vcpu_exit_cb(uint64_t id, on_vcpu call);
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, on_block call);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *instruction,
                                            on_instruction call, int flags, void *data);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *instruction, on_access call,
                                      int flags, int which, void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *block, size_t index);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *instruction);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *instruction);
unsigned qemu_plugin_mem_size_shift(uint32_t info);
bool qemu_plugin_mem_is_store(uint32_t info);

#define EXPORTED __attribute__((visibility("default")))
EXPORTED int qemu_plugin_version = API_VERSION;

enum { HEAD_WORDS = 8, SLOT_HEAD = 8, SLOT_RECORDS = SLOT_WORDS - SLOT_HEAD };
enum { READ = 0, WRITE = 1, FETCH = 2 };
enum { FREE = 0, FILLING = 1, FULL = 2 };
enum { MOST_THREADS = SLOTS / 2 };

struct slot {
    uint64_t state, thread, records, sequence, unused[SLOT_HEAD - 4];
    uint64_t record[SLOT_RECORDS];
};

static struct {
    uint64_t end, sequence, unused[HEAD_WORDS - 2];
    struct slot slot[SLOTS];
} *shared;

static struct slot *present[MOST_THREADS]; /* by vcpu */
static uint64_t thread_of[MOST_THREADS];   /* by vcpu */
static uint64_t threads;
static struct slot nowhere;  /* what nobody wants to know goes here */
static int silent;           /* a forked child, or the recorder has seen enough */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct slot *free_slot(uint64_t thread)
{
    const struct timespec nap = {0, 50000};
    for (;;) {
        if (silent || __atomic_load_n(&shared->end, __ATOMIC_RELAXED)) {
            silent = 1;
            nowhere.records = 0;
            return &nowhere;
        }
        pthread_mutex_lock(&lock);
        for (int i = 0; i < SLOTS; i++) {
            struct slot *slot = &shared->slot[i];
            if (__atomic_load_n(&slot->state, __ATOMIC_ACQUIRE) == FREE) {
                slot->thread = thread;
                slot->records = 0;
                __atomic_store_n(&slot->state, FILLING, __ATOMIC_RELEASE);
                pthread_mutex_unlock(&lock);
                return slot;
            }
        }
        pthread_mutex_unlock(&lock);
        nanosleep(&nap, NULL);
    }
}

static void give_up(struct slot *slot)
{
    if (slot == &nowhere)
        return;
    pthread_mutex_lock(&lock);
    slot->sequence = shared->sequence++;
    __atomic_store_n(&slot->state, FULL, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&lock);
}

static void put(unsigned vcpu, uint64_t what)
{
    struct slot *slot = present[vcpu % MOST_THREADS];
    if (__builtin_expect(slot == NULL, 0)) {
        if (vcpu >= MOST_THREADS) {
            fprintf(stderr, "mmu: a program of more than %d threads\n", MOST_THREADS);
            _exit(1);
        }
        thread_of[vcpu] = __atomic_fetch_add(&threads, 1, __ATOMIC_RELAXED);
        slot = present[vcpu] = free_slot(thread_of[vcpu]);
    }
    uint64_t n = slot->records;
    slot->record[n] = what;
    __atomic_store_n(&slot->records, n + 1, __ATOMIC_RELEASE);
    if (__builtin_expect(n + 1 == SLOT_RECORDS, 0)) {
        give_up(slot);
        present[vcpu] = free_slot(thread_of[vcpu]);
    }
}

static void fetched(unsigned vcpu, void *data)
{
    put(vcpu, (uint64_t)data);
}

/* One call for both kinds: with a call for each, QEMU 7.2 tells loads to that of stores, and stores to
 * both. A locked instruction is told once, as a store, and what it was is in bits 17:16, which the
 * interface does not name: 1 load, 2 store, 3 both. */
static void accessed(unsigned vcpu, uint32_t info, uint64_t address, void *data)
{
    uint64_t what = address << 16 | 4ul << qemu_plugin_mem_size_shift(info);
    bool store = qemu_plugin_mem_is_store(info);
    if (!store || (info >> 16 & 3) == 3)
        put(vcpu, what | READ);
    if (store)
        put(vcpu, what | WRITE);
}

static void translated(uint64_t id, struct qemu_plugin_tb *block)
{
    size_t instructions = qemu_plugin_tb_n_insns(block);
    for (size_t i = 0; i < instructions; i++) {
        struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(block, i);
        uint64_t address = qemu_plugin_insn_vaddr(instruction);
        uint64_t what = address << 16 | qemu_plugin_insn_size(instruction) << 2 | FETCH;
        qemu_plugin_register_vcpu_insn_exec_cb(instruction, fetched, NO_REGISTERS, (void *)what);
        qemu_plugin_register_vcpu_mem_cb(instruction, accessed, NO_REGISTERS, LOADS_AND_STORES, NULL);
    }
}

static void ended(uint64_t id, unsigned vcpu)
{
    if (vcpu < MOST_THREADS && present[vcpu] && !silent) {
        give_up(present[vcpu]);
        present[vcpu] = NULL;
    }
}

static void forked(void)
{
    silent = 1;
    for (int i = 0; i < MOST_THREADS; i++)
        if (present[i])
            present[i] = &nowhere;
    nowhere.records = 0;
}

EXPORTED int qemu_plugin_install(uint64_t id, const void *information, int count, char **arguments)
{
    const char *name = count > 0 ? arguments[0] : "";
    if (strncmp(name, "map=", 4) != 0)
        _exit(0); /* a trial */
    int file = open(name + 4, O_RDWR);
    if (file < 0)
        return 1;
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (shared == MAP_FAILED)
        return 1;
    pthread_atfork(NULL, NULL, forked);
    qemu_plugin_register_vcpu_exit_cb(id, ended);
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    return 0;
}
