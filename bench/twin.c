/* The model of mmu by hand in C: what a compiled, specialised emulator of the same rules costs.
 *
 * It answers two questions. Do the kernels of the package count right? An independent program has
 * to arrive at every one of their numbers. Are they fast? This one has all that a C programmer can
 * ask for: one processor whose geometry the compiler knows, one thread, no checks of its input, no
 * 1 GiB pages, no fragmentation, one address space to a VM.
 *
 * Words: gva, gpa, maddr are guest virtual, guest physical and machine addresses. Level 1 is the
 * last table, 4 the root. Size 0 is 4 KiB, 1 is 2 MiB. Counters are kept by row: row v for VM v
 * itself, row vms + v for what the hypervisor touches on exits of VM v. */
#define _GNU_SOURCE
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
typedef uint64_t word;

/* ---- The processor: Skylake-SP, unless -DSHAPES(X)=... and -DL2_FOLD=... say otherwise ----
 * X(cache, entries, ways); 0 entries, 1 way: there is no such cache. Sets are a power of two. L2 is
 * of both sides and sizes, NESTED (the nested TLB: gpa to maddr) of both sizes. */
#ifndef SHAPES
#define SHAPES(X)                                                                                  \
    X(DATA_4K, 64, 4) X(DATA_2M, 32, 4) X(FETCH_4K, 128, 8) X(FETCH_2M, 8, 8) X(L2, 1536, 12)      \
    X(PDE, 32, 4) X(PDPTE, 4, 4) X(PML4E, 4, 4) X(NESTED, 64, 4)
#endif
#ifndef L2_FOLD /* set = (page ^ page >> fold) mod sets; 63: linear */
#define L2_FOLD 7
#endif

/* All caches stand one after the other in two arrays of slots, so that a flush is one memset. The
 * nested TLB comes last: a flush of guest virtual translations stops before it. */
#define AS_SLOTS(cache, entries, ways)                                                             \
    cache, cache##_ENTRIES = entries, cache##_WAYS = ways, cache##_SETS = (entries) / (ways),      \
    cache##_LAST = cache + (entries) - 1,
#define AS_CHECK(cache, entries, ways)                                                             \
    _Static_assert((entries) % (ways) == 0 && !(cache##_SETS & (cache##_SETS - 1)), #cache);
#define SET(cache, page) (cache + ((page) & (cache##_SETS - 1)) * cache##_WAYS) /* first slot */
enum { SHAPES(AS_SLOTS) SLOTS };
SHAPES(AS_CHECK)
_Static_assert(DATA_4K_ENTRIES && FETCH_4K_ENTRIES && L2_ENTRIES, "these are always probed");

/* ---- Settings, counters and causes: exported by name, so that no caller has to know the order. */
#define SETTING_LIST(X)                                                                            \
    X(mode) X(quantum) X(quantum_unit) X(frequency_hz) X(exits_per_second) X(exit_code_pages)      \
    X(exit_data_pages) X(warm_up) X(repeat) X(nested_dirty) X(first_touch) X(flush_nested)         \
    X(memory) X(reserve) X(cycles_per_instruction) X(l2_latency) X(walk_cache_latency)             \
    X(nested_tlb_latency) X(reference_latency) X(update_latency) X(guest_fault_cost)               \
    X(nested_fault_cost) X(exit_cost) X(switch_cost)
#define VM_SETTING_LIST(X) X(vm_memory) X(guest_pages) X(nested_pages)
#define COUNTER_LIST(X)                                                                            \
    X(access_data) X(access_fetch) X(instruction) X(l1_miss_data) X(l1_miss_fetch) X(l2_lookup)    \
    X(l2_hit) X(walk) X(dirty_walk) X(fault_walk) X(pde_hit) X(pdpte_hit) X(pml4e_hit)             \
    X(nested_lookup) X(nested_hit) X(guest_reference) X(nested_reference) X(update)                \
    X(guest_fault) X(nested_fault) X(exit) X(switch)
#define CAUSE_LIST(X)                                                                              \
    X(base) X(l2) X(walk_cache) X(nested_tlb) X(guest_table) X(nested_table) X(update)             \
    X(guest_fault) X(nested_fault) X(exit) X(switch) X(hypervisor)
#define AS_SETTING(name) S_##name,
#define AS_COUNTER(name) C_##name,
#define AS_CAUSE(name) K_##name,
#define AS_TEXT(name) #name " "
enum { SETTING_LIST(AS_SETTING) SETTINGS };
enum { VM_SETTING_LIST(AS_SETTING) VM_SETTINGS };
enum { COUNTER_LIST(AS_COUNTER) COUNTERS };
enum { CAUSE_LIST(AS_CAUSE) CAUSES };
const char *const names[4] = {SETTING_LIST(AS_TEXT), VM_SETTING_LIST(AS_TEXT),
                              COUNTER_LIST(AS_TEXT), CAUSE_LIST(AS_TEXT)};
const int histogram_width = 25; /* a walk makes at most 4 guest and 5 x 4 nested references */

enum { TAGGED, PURGE, FLUSH, NATIVE };       /* mode */
enum { ACCESSES, INSTRUCTIONS, CYCLES };     /* quantum_unit */
enum { SMALL, LARGE, AUTO };                 /* guest_pages, nested_pages */
enum { READ, WRITE, FETCH, SUPERVISOR = 3 }; /* kinds; the hypervisor's are three higher */
enum { DONE = 0, FAULT = -1, NO_ROOM = -2, HOST_NO_ROOM = -3, BAD_SETTINGS = -4, REFUSED = -5 };

/* ---- Words ----
 * Tag:   context (11 bits) | page number (45) | size (2) | denied kinds (6). Two tags name the same
 *        page if they differ in the lowest six bits at most; rights and dirty are one bit test.
 * Frame: machine address | size << 5 | dirty << 4 | rights. Never 0, since it may be read.
 * The entries of a set stand in order of recency: the victim is known, and most hits are the first
 * one compared. No key equals EMPTY, whose context is never given out. */
enum { DENIED = 63, SIZE_SHIFT = 6, PAGE_SHIFT = 8, CONTEXT_SHIFT = 53, FRAME_SIZE = 5 };
enum { MAY_READ = 1, MAY_WRITE = 2, MAY_EXECUTE = 4, MAY_USER = 8, RIGHTS = 15, IS_DIRTY = 16 };
enum { MAX_VMS = 256, BLOCK = 4096, PAGE = 4096 };
#define EMPTY (~(word)0)
#define ADDRESS 0x000ffffffffff000ull
#define LOW_45_BITS ((1ull << 45) - 1)
#define LARGE_PAGE (1ull << 21)
#define IN_LARGE (LARGE_PAGE - PAGE) /* which 4 KiB page of a 2 MiB one */
static _Alignas(64) word tags[SLOTS], frames[SLOTS];

/* x86-64 entries, and EPT's where they differ (rights: MAY_READ, MAY_WRITE, MAY_EXECUTE). */
enum { PRESENT = 1, ENTRY_WRITE = 2, ENTRY_USER = 4 };
enum { ENTRY_ACCESSED = 0x20, ENTRY_DIRTY = 0x40, ENTRY_LARGE = 0x80 };
enum { EPT_RIGHTS = 7, EPT_WRITEBACK = 0x30, EPT_ACCESSED = 0x100, EPT_DIRTY = 0x200 };
#define HYPERVISOR_CODE 0xffff800000000000ull
#define HYPERVISOR_DATA 0xffff888000000000ull

/* ---- State: one run at a time ---- */
struct space { /* [row]: an address space, and where its accesses are counted */
    word context, root; /* the context as in a tag; the root's gpa if nested, else its maddr */
    int64_t *counters, *histogram, *evictions;
    int vm, nested; /* nested: has a nested table below it */
};
/* Frames of one owner, lowest first; `whole` is the index of the next 2 MiB that nobody has. */
struct pool { word base, regions, whole, partial, partial_end; };
struct tree { /* of tables, as software writes them */
    struct tree *under;           /* that its addresses are translated by; NULL: they are maddrs */
    struct pool *tables, *pages;  /* whose frames it takes */
    word root, link, leaf;        /* bits of every entry, and those that a leaf has besides */
    int64_t policy, mapped;       /* SMALL, LARGE, AUTO; pages mapped so far */
    int no_room;                  /* what it is called if there is no frame */
};
struct vm {
    struct pool pool;
    struct tree guest, nested;
    const int64_t *address;                     /* its trace: [length] */
    const uint8_t *kind;
    int64_t length, position, rounds, has_fetch;
    int64_t *cycles;                            /* [cause]: what the clock holds already */
};
static struct vm vm_of[MAX_VMS];
static struct space spaces[2 * MAX_VMS];
static int64_t vms;
static const int64_t *settings;
static word *memory; /* machine memory by address; only pages that hold tables become resident */
static struct pool machine, reserve;
static word fault_gpa;        /* of the nested fault that ended a walk; 0: the guest's fault */
static uint8_t denied_by[32]; /* [dirty << 4 | rights]: kinds that such an entry denies */

/* ---- Sets ---- */
static inline int find(size_t set, int ways, word key) {
    for (int way = 0; way < ways; way++)
        if ((tags[set + way] ^ key) <= DENIED)
            return way;
    return -1;
}

static inline void insert(size_t set, int over, word tag, word frame) { /* in front of the set */
    for (int way = over; way > 0; way--) {
        tags[set + way] = tags[set + way - 1];
        frames[set + way] = frames[set + way - 1];
        if (!__builtin_constant_p(over)) /* two turns as a rule: no work for vectors (7 %) */
            __asm__ volatile("");
    }
    tags[set] = tag;
    frames[set] = frame;
}

/* Is the page in the set? If so its entry stands at `set` itself from now on. */
static inline bool look_up(size_t set, int ways, word key) {
    int way = find(set, ways, key);
    if (way > 0)
        insert(set, way, tags[set + way], frames[set + way]);
    return way >= 0;
}

/* A fill: over the page's own stale copy if one may be there, else over the least recent entry,
 * whose tag is returned (EMPTY: nothing was lost). */
static inline word fill(size_t set, int ways, word tag, word frame, bool stale) {
    int own = stale ? find(set, ways, tag) : -1;
    word dropped = own < 0 ? tags[set + ways - 1] : EMPTY;
    if (own >= 0)
        insert(set, own, tag, frame);
    else
        insert(set, ways - 1, tag, frame); /* apart, for here the compiler knows how many move */
    return dropped;
}

static inline word page_of(word of, int size) { return of >> (12 + 9 * size) & LOW_45_BITS; }
static inline word key_of(word context, word page, int size) {
    return context | page << PAGE_SHIFT | (word)size << SIZE_SHIFT;
}

/* First slot and ways of a set of an L1. */
#define L1_SET(fetch, size, page) ((fetch) ? SET(FETCH_##size, page) : SET(DATA_##size, page))
#define L1_WAYS(fetch, size) ((fetch) ? FETCH_##size##_WAYS : DATA_##size##_WAYS)
#define HAS_2M(fetch) ((fetch) ? FETCH_2M_ENTRIES > 0 : DATA_2M_ENTRIES > 0)
static inline size_t l2_set(word page) { return SET(L2, page ^ page >> L2_FOLD); }
/* Slot of the L1 entry for gva, the most recent of its set from now on; -1: none. Denies or not. */
static inline long look_up_l1(bool fetch, word context, word gva) {
    word small = page_of(gva, 0), large = page_of(gva, 1);
    if (look_up(L1_SET(fetch, 4K, small), L1_WAYS(fetch, 4K), key_of(context, small, 0)))
        return L1_SET(fetch, 4K, small);
    if (HAS_2M(fetch) &&
        look_up(L1_SET(fetch, 2M, large), L1_WAYS(fetch, 2M), key_of(context, large, 1)))
        return L1_SET(fetch, 2M, large);
    return -1;
}

static void flush(void) {
    memset(tags, 0xff, (settings[S_flush_nested] ? SLOTS : NESTED) * sizeof *tags);
}

static void purge(word context) { /* drop what it owns; the others close ranks, order kept */
#define AS_ROW(cache, entries, ways) {cache, cache##_LAST, ways},
    static const struct { int first, last, ways; } rows[] = {SHAPES(AS_ROW)};
    for (size_t row = 0; rows[row].first != NESTED; row++)
        for (int set = rows[row].first; set <= rows[row].last; set += rows[row].ways) {
            int kept = set, end = set + rows[row].ways;
            for (int slot = set; slot < end; slot++)
                if ((tags[slot] ^ context) >> CONTEXT_SHIFT) {
                    tags[kept] = tags[slot];
                    frames[kept++] = frames[slot];
                }
            while (kept < end)
                tags[kept++] = EMPTY;
        }
}

/* ---- The walk ---- */
static inline word *slot_at(word table, int level, word address) { /* table: its machine address */
    return memory + (table >> 3) + (address >> (3 + 9 * level) & 511);
}

/* Set accessed or dirty bits of an entry that lacks one: a single store. The entry after it. */
static inline word set_bits(word *slot, word bits, int64_t *counters) {
    if (bits & ~*slot) {
        *slot |= bits;
        counters[C_update]++;
    }
    return *slot;
}

/* Frame word of the 4 KiB page of gpa, its size that of the nested page; 0: nested fault. */
static word translate_gpa(const struct space *space, word gpa, int kind) {
    int64_t *counters = space->counters;
    bool nested_dirty = settings[S_nested_dirty], found = false;
    word context = (word)space->vm << CONTEXT_SHIFT;
    counters[C_nested_lookup]++;
    for (int size = 0; size < 2 && NESTED_ENTRIES && !found; size++) {
        size_t set = SET(NESTED, page_of(gpa, size));
        found = look_up(set, NESTED_WAYS, key_of(context, page_of(gpa, size), size));
        if (found && !(tags[set] >> kind & 1)) {
            counters[C_nested_hit]++;
            return frames[set] | (size ? gpa & IN_LARGE : 0);
        }
    }
    word table = vm_of[space->vm].nested.root, rights = RIGHTS, entry, *slot;
    int level = 4;
    for (fault_gpa = gpa;; level--) {
        slot = slot_at(table, level, gpa);
        entry = *slot;
        counters[C_nested_reference]++;
        if (!(entry & EPT_RIGHTS))
            return 0;
        rights &= MAY_USER | (entry & EPT_RIGHTS);
        if (level == 1 || entry & ENTRY_LARGE)
            break;
        if (nested_dirty)
            set_bits(slot, EPT_ACCESSED, counters);
        table = entry & ADDRESS;
    }
    if (denied_by[IS_DIRTY | rights] >> kind & 1)
        return 0;
    fault_gpa = 0;
    if (nested_dirty)
        entry = set_bits(slot, EPT_ACCESSED | (kind == WRITE ? EPT_DIRTY : 0), counters);
    int size = level - 1;
    word dirty = nested_dirty && !(entry & EPT_DIRTY) ? 0 : IS_DIRTY, page = page_of(gpa, size);
    word frame = (entry & ADDRESS) | (word)size << FRAME_SIZE | dirty | rights;
    word tag = key_of(context, page, size) | denied_by[dirty | rights];
    if (NESTED_ENTRIES)
        fill(SET(NESTED, page), NESTED_WAYS, tag, frame, found);
    return frame | (size ? gpa & IN_LARGE : 0);
}

/* The walk cache that locates tables of a level: the set of a page; ways, 0 if there is none. */
static inline size_t walk_set(int level, word page) {
    return level == 1 ? SET(PDE, page) : level == 2 ? SET(PDPTE, page) : SET(PML4E, page);
}
static inline int walk_ways(int level) {
    int entries = level == 1 ? PDE_ENTRIES : level == 2 ? PDPTE_ENTRIES : PML4E_ENTRIES;
    return !entries ? 0 : level == 1 ? PDE_WAYS : level == 2 ? PDPTE_WAYS : PML4E_WAYS;
}

/* A fault invalidates the walk-cache entries of its address; TLBs hold none, for it was not mapped. */
static void drop_tables(const struct space *space, word gva) {
    for (int level = 1; level < 4; level++) {
        word page = page_of(gva, level);
        size_t set = walk_set(level, page), last = set + walk_ways(level) - 1;
        if (!walk_ways(level) || !look_up(set, walk_ways(level), key_of(space->context, page, 0)))
            continue;
        for (; set < last; set++)
            tags[set] = tags[set + 1], frames[set] = frames[set + 1];
        tags[last] = EMPTY;
    }
}

/* Frame word of the page that a TLB entry for gva covers; 0: a fault, nested if fault_gpa is. */
static word walk(const struct space *space, word gva, int kind) {
    int64_t *counters = space->counters;
    word table = space->root, rights = RIGHTS, entry, *slot;
    int level = 1;
    fault_gpa = 0;
#pragma GCC unroll 3
    for (; level < 4; level++) {
        word page = page_of(gva, level);
        size_t set = walk_set(level, page);
        if (look_up(set, walk_ways(level), key_of(space->context, page, 0))) {
            counters[C_pde_hit + level - 1]++;
            table = frames[set] & ADDRESS, rights = frames[set] & RIGHTS;
            break;
        }
    }
    int table_kind = settings[S_nested_dirty] ? WRITE : READ;
    if (level == 4 && space->nested && !(table = ADDRESS & translate_gpa(space, table, table_kind)))
        return 0;
    for (;;) {
        slot = slot_at(table, level, gva);
        entry = *slot;
        counters[C_guest_reference]++;
        if (!(entry & PRESENT)) {
            drop_tables(space, gva);
            return 0;
        }
        rights &= MAY_READ | (entry & ENTRY_WRITE) | (entry & ENTRY_USER) << 1 |
                  (entry >> 63 ? 0 : MAY_EXECUTE);
        if (level == 1 || entry & ENTRY_LARGE)
            break;
        set_bits(slot, ENTRY_ACCESSED, counters);
        table = entry & ADDRESS;
        if (space->nested && !(table = ADDRESS & translate_gpa(space, table, table_kind)))
            return 0;
        word page = page_of(gva, --level), key = key_of(space->context, page, 0);
        if (walk_ways(level)) /* it is not there, or the walk would have begun below */
            insert(walk_set(level, page), walk_ways(level) - 1, key, table | rights);
    }
    if (denied_by[IS_DIRTY | rights] >> kind & 1)
        return 0;
    bool write = kind % SUPERVISOR == WRITE;
    entry = set_bits(slot, ENTRY_ACCESSED | (write ? ENTRY_DIRTY : 0), counters);
    word dirty = entry & ENTRY_DIRTY ? IS_DIRTY : 0, size = level - 1, in_page = size * IN_LARGE;
    word gpa = (entry & ADDRESS & ~in_page) | (gva & in_page);
    if (!space->nested)
        return (gpa & ~in_page) | size << FRAME_SIZE | dirty | rights;
    word backing = translate_gpa(space, gpa, kind);
    if (!backing) {
        drop_tables(space, gva);
        return 0;
    }
    size &= backing >> FRAME_SIZE; /* the smaller of the two */
    return (backing & ADDRESS & ~(size ? IN_LARGE : 0)) | size << FRAME_SIZE |
           (backing & (dirty | rights));
}

/* ---- One access that did not simply hit ---- */
/* Frames are copied though nothing here reads them: what yields no address is no translation. */
static inline void fill_l1(bool fetch, word context, word gva, word frame, bool stale) {
    word denied = denied_by[frame & (IS_DIRTY | RIGHTS)];
    int size = frame >> FRAME_SIZE & 1;
    if (size && !HAS_2M(fetch)) { /* broken up: the 4 KiB piece that is used */
        frame = (frame & ~(1ull << FRAME_SIZE)) | (gva & IN_LARGE);
        size = 0;
    }
    word page = page_of(gva, size), tag = key_of(context, page, size) | denied;
    if (size)
        fill(L1_SET(fetch, 2M, page), L1_WAYS(fetch, 2M), tag, frame, stale);
    else
        fill(L1_SET(fetch, 4K, page), L1_WAYS(fetch, 4K), tag, frame, stale);
}

/* L1 has no entry, or (in_l1) one that denies the kind: DONE, and now it admits it; or FAULT. */
static int miss(const struct space *space, word gva, int kind, bool in_l1) {
    int64_t *counters = space->counters;
    bool fetch = kind % SUPERVISOR == FETCH, in_l2 = false;
    counters[C_l2_lookup] += !in_l1;
    for (int size = 0; size < 2 && !in_l1 && !in_l2; size++) {
        word page = page_of(gva, size);
        size_t set = l2_set(page);
        in_l2 = look_up(set, L2_WAYS, key_of(space->context, page, size));
        if (in_l2 && !(tags[set] >> kind & 1)) {
            counters[C_l1_miss_data + fetch]++;
            counters[C_l2_hit]++;
            fill_l1(fetch, space->context, gva, frames[set], false);
            return DONE;
        }
    }
    int64_t before = counters[C_guest_reference] + counters[C_nested_reference];
    word frame = walk(space, gva, kind);
    if (!frame) {
        counters[C_fault_walk]++;
        return FAULT;
    }
    space->histogram[counters[C_guest_reference] + counters[C_nested_reference] - before]++;
    counters[in_l1 || in_l2 ? C_dirty_walk : C_walk]++;
    counters[C_l1_miss_data + fetch] += !in_l1;
    counters[C_l2_hit] += in_l2;
    int size = frame >> FRAME_SIZE & 1;
    word page = page_of(gva, size), denied = denied_by[frame & (IS_DIRTY | RIGHTS)];
    word tag = key_of(space->context, page, size) | denied;
    word dropped = fill(l2_set(page), L2_WAYS, tag, frame, in_l1 || in_l2);
    if (dropped != EMPTY)
        space->evictions[dropped >> CONTEXT_SHIFT]++;
    fill_l1(fetch, space->context, gva, frame, in_l1);
    return DONE;
}

/* ---- Frames and tables: the guest's pager, and the hypervisor ---- */
static word small_frame(struct pool *pool) { /* 0: none left */
    if (pool->partial == pool->partial_end) {
        if (pool->whole >= pool->regions)
            return 0;
        pool->partial = pool->base + pool->whole++ * LARGE_PAGE;
        pool->partial_end = pool->partial + LARGE_PAGE;
    }
    pool->partial += PAGE;
    return pool->partial - PAGE;
}
static word large_frame(struct pool *pool) { /* 0: none left */
    return pool->whole >= pool->regions ? 0 : pool->base + pool->whole++ * LARGE_PAGE;
}
static struct pool first_taken(word base, word bytes) { /* by someone else: so 0 can mean none */
    return (struct pool){base, bytes / LARGE_PAGE, 1, base + PAGE, base + LARGE_PAGE};
}

/* Map the page of an address unless it is, and locate it: its size, or (negative) what is short. */
static int map(struct tree *tree, word address, word *maddr) {
    word table = tree->root;
    for (int level = 4;; level--) {
        word place = table, frame = 0;
        if (tree->under) /* only locates: whoever made or walked to the table has touched it */
            map(tree->under, table, &place);
        word *slot = slot_at(place, level, address);
        if (!*slot) {
            bool large = level == 2 && tree->policy != SMALL && (frame = large_frame(tree->pages));
            bool leaf = level == 1 || large;
            if (!frame && !(level == 2 && tree->policy == LARGE))
                frame = small_frame(leaf ? tree->pages : tree->tables);
            if (!frame)
                return tree->no_room;
            *slot = frame | tree->link | (leaf ? tree->leaf : 0) | (large ? ENTRY_LARGE : 0);
            tree->mapped += leaf;
            /* A new table is written, which touches it; data waits for an access. */
            for (word end = frame + (large ? LARGE_PAGE : PAGE);
                 tree->under && !(leaf && settings[S_first_touch]) && frame < end;) {
                int size = map(tree->under, frame, &place);
                if (size < 0)
                    return size;
                frame += size ? LARGE_PAGE : PAGE;
            }
        }
        table = *slot & ADDRESS;
        if (level == 1 || *slot & ENTRY_LARGE) {
            *maddr = table | (level == 2 ? address & IN_LARGE : 0);
            return level - 1;
        }
    }
}

/* ---- Exits ---- */
static void take_exit(int vm) {
    spaces[vm].counters[C_exit]++;
    if (settings[S_mode] == FLUSH)
        flush();
    const struct space *space = &spaces[vms + vm];
    int64_t code = settings[S_exit_code_pages], data = settings[S_exit_data_pages];
    for (int64_t i = -code; i < data; i++) {
        bool fetch = i < 0;
        int kind = SUPERVISOR + (fetch ? FETCH : i & 1 ? WRITE : READ);
        word gva = fetch ? HYPERVISOR_CODE + PAGE * (code + i)
                         : HYPERVISOR_DATA + PAGE * (vm * data + i);
        space->counters[C_access_data + fetch]++;
        long slot = look_up_l1(fetch, space->context, gva);
        if (slot < 0 || tags[slot] >> kind & 1)
            miss(space, gva, kind, slot >= 0); /* never faults: all is mapped from the start */
    }
    if (settings[S_mode] == FLUSH)
        flush();
}

/* Serve the fault that the VM's last walk ended in: DONE, or what is short. */
static int serve_fault(int id, word gva) {
    struct tree *nested = &vm_of[id].nested, *tree = fault_gpa ? nested : &vm_of[id].guest;
    int64_t before = tree->mapped, backed = nested->mapped;
    word maddr;
    spaces[id].counters[C_guest_fault] += !fault_gpa;
    int status = map(tree, fault_gpa ? fault_gpa : gva, &maddr);
    if (status < 0 || tree->mapped == before)
        return status < 0 ? status : REFUSED; /* by rights, which no page of this model ever does */
    for (backed = nested->mapped - backed; backed > 0 && settings[S_first_touch]; backed--) {
        spaces[id].counters[C_nested_fault]++;
        take_exit(id);
    }
    return DONE;
}

/* A miss, made again after each fault it ends in (a fault has filled neither L1 nor L2): DONE, or
 * what is short. Out of line, so that the loop of hits keeps its registers (10 %). */
static __attribute__((noinline)) int resolve(int vm, word gva, int kind, bool in_l1) {
    int status = DONE;
    while (status == DONE && miss(&spaces[vm], gva, kind, in_l1) == FAULT)
        status = serve_fault(vm, gva);
    return status;
}

/* ---- Blocks, slices, the clock ---- */
static __attribute__((noinline)) int replay_block(int vm, int64_t count) {
    word context = spaces[vm].context;
    int64_t end = vm_of[vm].position + count;
    const int64_t *address = vm_of[vm].address + end; /* counting up to 0 needs a register less */
    const uint8_t *kinds = vm_of[vm].kind + end;
    for (int64_t i = -count; i < 0; i++) {
        word gva = address[i], small = page_of(gva, 0);
        int kind = kinds[i];
        bool fetch = kind == FETCH;
        /* A page that is the most recent of its set and does not deny the kind: using it again
         * changes nothing. 95 to 99 % of real accesses end here. Asked of the set, not of a word
         * for the side's last page, it is true more often and better predicted (10 %). */
        word care = ~(word)DENIED | 1u << kind;
        if (!((tags[L1_SET(fetch, 4K, small)] ^ key_of(context, small, 0)) & care))
            continue;
        word large = page_of(gva, 1);
        if (HAS_2M(fetch) &&
            !((tags[L1_SET(fetch, 2M, large)] ^ key_of(context, large, 1)) & care))
            continue;
        long slot = look_up_l1(fetch, context, gva);
        if (slot >= 0 && !(tags[slot] >> kind & 1))
            continue;
        int status = resolve(vm, gva, kind, slot >= 0);
        if (status != DONE)
            return status;
    }
    return DONE;
}

/* Book one VM's cycles by cause, each counter times its cost: those that the clock lacks. */
static int64_t charge(int vm) {
    static const struct { int cause, counter, cost; } prices[] = {
        {K_base, C_instruction, S_cycles_per_instruction},
        {K_l2, C_l2_lookup, S_l2_latency},
        {K_walk_cache, C_walk, S_walk_cache_latency},
        {K_walk_cache, C_dirty_walk, S_walk_cache_latency},
        {K_walk_cache, C_fault_walk, S_walk_cache_latency},
        {K_nested_tlb, C_nested_lookup, S_nested_tlb_latency},
        {K_guest_table, C_guest_reference, S_reference_latency},
        {K_nested_table, C_nested_reference, S_reference_latency},
        {K_update, C_update, S_update_latency},
        {K_guest_fault, C_guest_fault, S_guest_fault_cost},
        {K_nested_fault, C_nested_fault, S_nested_fault_cost},
        {K_exit, C_exit, S_exit_cost},
        {K_switch, C_switch, S_switch_cost},
    };
    int64_t *cycles = vm_of[vm].cycles, news = 0;
    for (int cause = 0; cause < CAUSES; cause++)
        news -= cycles[cause];
    memset(cycles, 0, CAUSES * sizeof *cycles);
    for (size_t each = 0; each < sizeof prices / sizeof *prices; each++) {
        int64_t cost = settings[prices[each].cost];
        cycles[prices[each].cause] += spaces[vm].counters[prices[each].counter] * cost;
        cycles[K_hypervisor] += spaces[vms + vm].counters[prices[each].counter] * cost;
    }
    for (int cause = 0; cause < CAUSES; cause++)
        news += cycles[cause];
    return news;
}

/* A VM that runs for the first time gets its root table: DONE, or what is short. */
static int begin(int id) {
    struct tree *guest = &vm_of[id].guest;
    word maddr;
    spaces[id].root = guest->root = small_frame(guest->tables);
    if (!guest->root || !guest->under || settings[S_first_touch])
        return guest->root ? DONE : NO_ROOM;
    return map(guest->under, guest->root, &maddr) < 0 ? HOST_NO_ROOM : DONE;
}

static int next_after(int vm) { /* next runnable VM in cyclic order, itself last; -1: none */
    for (int step = 1; step <= vms; step++)
        if (vm_of[(vm + step) % vms].rounds)
            return (vm + step) % vms;
    return -1;
}

static int dispatch(int64_t *out, size_t zeroed, int64_t *clock_out) {
    int64_t mode = settings[S_mode], unit = settings[S_quantum_unit], clock = 0, total = 0;
    int64_t begun[3] = {0}, now[3] = {0}; /* [quantum_unit] */
    int64_t warm = !settings[S_warm_up], interval = 0, next_exit = INT64_MAX;
    if (mode != NATIVE && settings[S_exits_per_second])
        next_exit = interval = settings[S_frequency_hz] / settings[S_exits_per_second];
    for (int id = next_after(vms - 1); id >= 0;) {
        struct vm *vm = &vm_of[id];
        const uint8_t *kinds = vm->kind + vm->position;
        int64_t *counters = spaces[id].counters, fetches = 0;
        int64_t left = vm->length - vm->position, count = left < BLOCK ? left : BLOCK;
        int status = vm->guest.root ? DONE : begin(id);
        if (status == DONE)
            status = replay_block(id, count);
        if (status < 0)
            return status;
        for (int64_t i = 0; i < count; i++)
            fetches += kinds[i] == FETCH;
        int64_t instructions = vm->has_fetch ? fetches : count;
        counters[C_access_data] += count - fetches;
        counters[C_access_fetch] += fetches;
        counters[C_instruction] += instructions;
        clock += charge(id);
        if (clock >= next_exit) {
            int64_t due = (clock - next_exit) / interval + 1;
            next_exit += due * interval;
            while (due--)
                take_exit(id);
            clock += charge(id);
        }
        total += count;
        if (!warm && (warm = total >= settings[S_warm_up]))
            memset(out, 0, zeroed);
        vm->position += count;
        if (vm->position == vm->length)
            vm->rounds--, vm->position = 0;
        now[ACCESSES] += count, now[INSTRUCTIONS] += instructions, now[CYCLES] = clock;
        if (vm->rounds && now[unit] - begun[unit] < settings[S_quantum])
            continue;
        int next = next_after(id);
        if (next >= 0 && next != id) {
            counters[C_switch]++;
            clock += charge(id);
            if (mode == PURGE)
                purge(spaces[id].context);
            if (mode == FLUSH)
                flush();
        }
        now[CYCLES] = clock; /* a slice begins after the switch that led to it */
        memcpy(begun, now, sizeof begun);
        id = next;
    }
    *clock_out = clock;
    return DONE;
}

/* ---- One run ---- */
static int set_up(const int64_t *vm_settings, int64_t *out) {
    bool native = settings[S_mode] == NATIVE;
    int64_t *histogram = out + 2 * vms * COUNTERS;
    int64_t *evictions = histogram + 2 * vms * histogram_width;
    word host = settings[S_reserve], maddr;
    int status = DONE;
    memset(tags, 0xff, sizeof tags);
    for (int bits = 0; bits < 32; bits++) {
        int denied = (bits & MAY_READ ? 0 : 1 << READ) | (bits & MAY_EXECUTE ? 0 : 1 << FETCH) |
                     (bits & MAY_WRITE && bits & IS_DIRTY ? 0 : 1 << WRITE);
        denied_by[bits] = denied << SUPERVISOR | (bits & MAY_USER ? denied : 7);
    }
    reserve = first_taken(0, host);
    machine = (struct pool){host, (settings[S_memory] - host) / LARGE_PAGE, 0, 0, 0};
    struct tree own = {NULL, &reserve, &reserve, small_frame(&reserve), PRESENT | ENTRY_WRITE, 0,
                       SMALL, 0, HOST_NO_ROOM};
    for (int64_t i = 0; i < settings[S_exit_code_pages] && status >= 0; i++)
        status = map(&own, HYPERVISOR_CODE + PAGE * i, &maddr);
    for (int64_t i = 0; i < vms * settings[S_exit_data_pages] && status >= 0; i++)
        status = map(&own, HYPERVISOR_DATA + PAGE * i, &maddr);
    for (int id = 0; id < vms && status >= 0; id++) {
        struct vm *vm = &vm_of[id];
        const int64_t *given = vm_settings + id * VM_SETTINGS;
        /* Natively pools are machine memory itself, side by side: pages get the same sizes. */
        vm->pool = first_taken(native ? host : 0, given[S_vm_memory]);
        host += given[S_vm_memory];
        vm->guest = (struct tree){native ? NULL : &vm->nested, &vm->pool, &vm->pool,
                                  0, PRESENT | ENTRY_WRITE | ENTRY_USER, 0,
                                  given[S_guest_pages], 0, NO_ROOM};
        vm->nested = (struct tree){NULL, &reserve, &machine, small_frame(&reserve), EPT_RIGHTS,
                                   EPT_WRITEBACK, given[S_nested_pages], 0, HOST_NO_ROOM};
        status = vm->nested.root ? DONE : HOST_NO_ROOM;
        for (int row = id; row < 2 * vms; row += vms) {
            int owner = row < vms ? row : vms;
            spaces[row] = (struct space){
                (word)owner << CONTEXT_SHIFT, row < vms ? 0 : own.root, out + row * COUNTERS,
                histogram + row * histogram_width, evictions + owner * (vms + 1), id,
                row < vms && !native};
        }
    }
    return status < 0 ? status : DONE;
}

/* Replay: 0, or one of the negative codes.
 *
 * addresses, kinds: [vm][access]; kinds 0 to 2; a VM of length 0 never runs. given: settings in the
 * order of names[0], then VM by VM those of names[1]. out, all int64: counters [2 * vms][names[2]],
 * references of a walk [2 * vms][histogram_width], evictions [vms + 1][vms + 1], cycles
 * [vms][names[3]], the clock, nanoseconds of processor time that the loop took. */
int run(int64_t count, const int64_t **addresses, const uint8_t **kinds, const int64_t *lengths,
        const int64_t *given, int64_t *out) {
    if (count < 1 || count > MAX_VMS || given[S_reserve] <= 0 || given[S_memory] < given[S_reserve])
        return BAD_SETTINGS;
    vms = count, settings = given;
    int64_t *cycles = out + 2 * vms * (COUNTERS + histogram_width) + (vms + 1) * (vms + 1);
    int64_t *clock = cycles + vms * CAUSES;
    size_t zeroed = (clock - out) * sizeof *out, bytes = settings[S_memory];
    for (int id = 0; id < vms; id++) {
        vm_of[id] = (struct vm){
            .address = addresses[id], .kind = kinds[id], .length = lengths[id],
            .cycles = cycles + id * CAUSES, .rounds = lengths[id] ? settings[S_repeat] : 0,
            .has_fetch = lengths[id] && memchr(kinds[id], FETCH, lengths[id])};
        if (settings[S_mode] == NATIVE)
            bytes += given[SETTINGS + id * VM_SETTINGS + S_vm_memory];
    }
    memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return BAD_SETTINGS;
    /* Tables are scattered pages: a huge page for each would commit 512 times what is used. */
    madvise(memory, bytes, MADV_NOHUGEPAGE);
    memset(out, 0, zeroed);
    int status = set_up(given + SETTINGS, out);
    if (status == DONE) {
        struct timespec begin, end; /* of this thread's processor time */
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begin);
        status = dispatch(out, zeroed, clock);
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
        clock[1] = (end.tv_sec - begin.tv_sec) * 1000000000LL + end.tv_nsec - begin.tv_nsec;
    }
    munmap(memory, bytes);
    return status;
}
