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
#ifdef __AVX512VL__ /* plain C stands beside each use */
#include <immintrin.h>
#endif
typedef uint64_t word;

/* ---- The processor: Skylake-SP, unless -DSHAPES(X)=..., -DL2_FOLD=..., -DDATA_CACHES(X)=... ----
 * X(cache, entries, ways, rule); 0 entries, 1 way: there is no such cache. Sets are a power of two.
 * L2 is of both sides and sizes, NESTED (the nested TLB: gpa to maddr) of both sizes. */
#ifndef SHAPES
#define SHAPES(X)                                                                                  \
    X(DATA_4K, 64, 4, TREE_PLRU) X(DATA_2M, 32, 4, TREE_PLRU) X(FETCH_4K, 128, 8, TREE_PLRU)       \
    X(FETCH_2M, 8, 8, TREE_PLRU) X(L2, 1536, 12, ROTATING_PLRU)                                    \
    X(PDE, 32, 4, LRU) X(PDPTE, 4, 4, LRU) X(PML4E, 4, 4, LRU) X(NESTED, 64, 4, LRU)
#endif
#ifndef L2_FOLD /* set = (page ^ page >> fold) mod sets; 63: linear */
#define L2_FOLD 7
#endif
/* X(cache, bytes, ways): what reads of tables find their 64-byte lines in; 0 bytes: there is no such
 * cache. Any number of sets. Without an L1D there is none of them: each read takes as long. */
#ifndef DATA_CACHES
#define DATA_CACHES(X) X(L1D, 32768, 8) X(L2D, 1048576, 16) X(L3D, 23068672, 11)
#endif

/* All caches stand one after the other in two arrays of slots, so that a flush is one memset. The
 * nested TLB comes last: a flush of guest virtual translations stops before it. Of each set there
 * is also a number, for the state of the pseudo-LRU rules. */
enum { LRU, TREE_PLRU, ROTATING_PLRU };
#define AS_SLOTS(cache, entries, ways, rule)                                                       \
    cache, cache##_ENTRIES = entries, cache##_WAYS = ways, cache##_SETS = (entries) / (ways),      \
    cache##_RULE = rule, cache##_LAST = cache + (entries) - 1,
#define AS_NUMBERS(cache, entries, ways, rule)                                                     \
    cache##_NUMBER, cache##_LAST_NUMBER = cache##_NUMBER + cache##_SETS - 1,
#define IS_LEAVES(ways) (!((ways) & ((ways) - 1)) && (ways) >= 2 && (ways) <= 16) /* of a tree */
#define AS_CHECK(cache, entries, ways, rule)                                                       \
    _Static_assert((entries) % (ways) == 0 && !(cache##_SETS & (cache##_SETS - 1)), #cache);       \
    _Static_assert(!(entries) || (rule) != TREE_PLRU || IS_LEAVES(ways), #cache);                  \
    _Static_assert(!(entries) || (rule) != ROTATING_PLRU ||                                        \
                   ((ways) % 3 == 0 && IS_LEAVES((ways) / 3)), #cache);
enum { SHAPES(AS_SLOTS) SLOTS };
enum { SHAPES(AS_NUMBERS) SETS };
SHAPES(AS_CHECK)
_Static_assert(DATA_4K_ENTRIES && FETCH_4K_ENTRIES && L2_ENTRIES, "these are always probed");

/* A set. What is not its place is known to the compiler, since all that takes one is inlined. */
struct set { size_t first, number; int ways, rule; bool has_recent; };
#define SET(cache, page)                                                                           \
    ((struct set){cache + ((page) & (cache##_SETS - 1)) * cache##_WAYS,                            \
                  cache##_NUMBER + ((page) & (cache##_SETS - 1)), cache##_WAYS, cache##_RULE,      \
                  (int)cache < (int)L2 && (int)cache##_RULE != LRU})
#define INLINE static inline __attribute__((always_inline))

enum { LINE_SHIFT = 6 };
#define AS_LINES(cache, bytes, ways)                                                               \
    cache, cache##_WAYS = ways, cache##_SETS = ((bytes) >> LINE_SHIFT) / (ways),                   \
    cache##_LAST = cache + cache##_SETS - 1,
#define AS_LINES_CHECK(cache, bytes, ways)                                                         \
    _Static_assert((bytes) % (64 * (ways)) == 0 && (ways) <= 16, #cache);
enum { DATA_CACHES(AS_LINES) LINE_SETS };
DATA_CACHES(AS_LINES_CHECK)

/* ---- Settings, counters and causes: exported by name, so that no caller has to know the order. */
#define SETTING_LIST(X)                                                                            \
    X(mode) X(quantum) X(quantum_unit) X(frequency_hz) X(exits_per_second) X(exit_code_pages)      \
    X(exit_data_pages) X(warm_up) X(repeat) X(nested_dirty) X(first_touch) X(flush_nested)         \
    X(memory) X(reserve) X(cycles_per_instruction) X(l2_latency) X(walk_cache_latency)             \
    X(nested_tlb_latency) X(reference_latency) X(l1d_read_latency) X(l2_read_latency)              \
    X(l3_read_latency) X(memory_read_latency) X(update_latency) X(guest_fault_cost)                \
    X(nested_fault_cost) X(exit_cost) X(switch_cost)
#define VM_SETTING_LIST(X) X(vm_memory) X(guest_pages) X(nested_pages)
#define COUNTER_LIST(X)                                                                            \
    X(access_data) X(access_fetch) X(instruction) X(l1_miss_data) X(l1_miss_fetch) X(l2_lookup)    \
    X(l2_hit) X(walk) X(dirty_walk) X(fault_walk) X(pde_hit) X(pdpte_hit) X(pml4e_hit)             \
    X(nested_lookup) X(nested_hit) X(guest_reference) X(nested_reference) X(guest_l1d)             \
    X(guest_l2) X(guest_l3) X(guest_memory) X(nested_l1d) X(nested_l2) X(nested_l3)                \
    X(nested_memory) X(update) X(guest_fault) X(nested_fault) X(exit) X(switch)
#define CAUSE_LIST(X)                                                                              \
    X(base) X(l2) X(walk_cache) X(nested_tlb) X(guest_table) X(nested_table) X(update)             \
    X(guest_fault) X(nested_fault) X(exit) X(switch) X(hypervisor)
/* Why a page that is walked for was in no TLB (a shared level has no other way to lose one). */
#define MISS_LIST(X) X(first_touch) X(other_vm) X(capacity) X(flush)
#define AS_SETTING(name) S_##name,
#define AS_COUNTER(name) C_##name,
#define AS_CAUSE(name) K_##name,
#define AS_MISS(name) M_##name,
#define AS_TEXT(name) #name " "
enum { SETTING_LIST(AS_SETTING) SETTINGS };
enum { VM_SETTING_LIST(AS_SETTING) VM_SETTINGS };
enum { COUNTER_LIST(AS_COUNTER) COUNTERS };
enum { CAUSE_LIST(AS_CAUSE) CAUSES };
enum { MISS_LIST(AS_MISS) MISSES };
const char *const names[5] = {SETTING_LIST(AS_TEXT), VM_SETTING_LIST(AS_TEXT),
                              COUNTER_LIST(AS_TEXT), CAUSE_LIST(AS_TEXT), MISS_LIST(AS_TEXT)};
const int histogram_width = 25; /* a walk makes at most 4 guest and 5 x 4 nested references */
/* Buckets of walk latencies: each below 512 cycles its own, above that 64 to each power of two. A
 * latency stays below 2^37: 25 look-ups, 24 references and 24 updates of 2^30 cycles at most. */
enum { EXACT = 512, EXACT_BITS = 9, PARTS = 64, PART_BITS = 6 };
const int latency_width = EXACT + (37 - EXACT_BITS) * PARTS;

enum { TAGGED, PURGE, FLUSH, NATIVE };       /* mode */
enum { ACCESSES, INSTRUCTIONS, CYCLES };     /* quantum_unit */
enum { SMALL, LARGE, AUTO };                 /* guest_pages, nested_pages */
enum { READ, WRITE, FETCH, SUPERVISOR = 3 }; /* kinds; the hypervisor's are three higher */
enum { DONE = 0, FAULT = -1, NO_ROOM = -2, HOST_NO_ROOM = -3, BAD_SETTINGS = -4, REFUSED = -5, NO_MEMORY = -6 };

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
/* Pseudo-LRU keeps entries in their ways. A set's state: tree g of its ways (the only one, or those
 * of three groups) has node k in bit 16 g + k, the group that was used last stands above. */
static word states[SETS];
static word recents[SETS]; /* of an L1: the tag of the entry used last, EMPTY if it is gone */
enum { TREE_BITS = 16, LAST_GROUP = 48 };
static struct { word keep, point; } paths[32]; /* [ways + way]: the effect of a use on a tree */

/* x86-64 entries, and EPT's where they differ (rights: MAY_READ, MAY_WRITE, MAY_EXECUTE). */
enum { PRESENT = 1, ENTRY_WRITE = 2, ENTRY_USER = 4 };
enum { ENTRY_ACCESSED = 0x20, ENTRY_DIRTY = 0x40, ENTRY_LARGE = 0x80 };
enum { EPT_RIGHTS = 7, EPT_WRITEBACK = 0x30, EPT_ACCESSED = 0x100, EPT_DIRTY = 0x200 };
#define HYPERVISOR_CODE 0xffff800000000000ull
#define HYPERVISOR_DATA 0xffff888000000000ull

/* ---- State: one run at a time ---- */
struct space { /* [row]: an address space, and where its accesses are counted */
    word context, root; /* the context as in a tag; the root's gpa if nested, else its maddr */
    int64_t *counters, *histogram, *latencies, *misses, *evictions;
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
/* Of pseudo-LRU any way is as likely as another: all are compared at once, without a branch. */
INLINE unsigned matches(struct set set, word key, word ignored) { /* bit by way */
    unsigned found = 0;
#ifdef __AVX512VL__
    const word *from = tags + set.first;
    for (int way = 0; way < set.ways; way += 8) {
        __mmask8 some = set.ways - way < 8 ? (1 << (set.ways - way)) - 1 : 255;
        __m512i unlike = _mm512_xor_si512(_mm512_maskz_loadu_epi64(some, from + way),
                                          _mm512_set1_epi64(key));
        found |= _mm512_mask_cmple_epu64_mask(some, unlike, _mm512_set1_epi64(ignored)) << way;
    }
#else
    for (int way = 0; way < set.ways; way++)
        found |= (unsigned)((tags[set.first + way] ^ key) <= ignored) << way;
#endif
    return found;
}

INLINE int find(struct set set, word key) {
    if (set.rule != LRU) {
        unsigned found = matches(set, key, DENIED);
        return found ? __builtin_ctz(found) : -1;
    }
    for (int way = 0; way < set.ways; way++)
        if ((tags[set.first + way] ^ key) <= DENIED)
            return way;
    return -1;
}

INLINE void insert(size_t set, int over, word tag, word frame) { /* LRU: in front of the set */
    for (int way = over; way > 0; way--) {
        tags[set + way] = tags[set + way - 1];
        frames[set + way] = frames[set + way - 1];
        if (!__builtin_constant_p(over)) /* two turns as a rule: no work for vectors (7 %) */
            __asm__ volatile("");
    }
    tags[set] = tag;
    frames[set] = frame;
}

INLINE void use(struct set set, int way) { /* pseudo-LRU: nodes on its path point away from it */
    int leaves = set.rule == TREE_PLRU ? set.ways : set.ways / 3, group = way / leaves;
    int leaf = leaves + way % leaves;
    word state = states[set.number];
    state &= ~(~paths[leaf].keep << group * TREE_BITS);
    state |= paths[leaf].point << group * TREE_BITS;
    if (set.rule == ROTATING_PLRU)
        state = state << (64 - LAST_GROUP) >> (64 - LAST_GROUP) | (word)group << LAST_GROUP;
    states[set.number] = state;
    if (set.has_recent)
        recents[set.number] = tags[set.first + way];
}

INLINE int victim(struct set set) { /* pseudo-LRU: the first free way, else where the tree points */
    unsigned free = matches(set, EMPTY, 0);
    if (free)
        return __builtin_ctz(free);
    int leaves = set.rule == TREE_PLRU ? set.ways : set.ways / 3, node = 1;
    word state = states[set.number], group = 0;
    if (set.rule == ROTATING_PLRU)
        group = state >> LAST_GROUP == 2 ? 0 : (state >> LAST_GROUP) + 1;
    for (state >>= group * TREE_BITS; node < leaves;)
        node = 2 * node + (state >> node & 1);
    return group * leaves + node - leaves;
}

/* Slot of the page's entry, which this uses; -1: it is not there. */
INLINE long look_up(struct set set, word key) {
    int way = find(set, key);
    if (set.rule != LRU && way >= 0)
        use(set, way);
    else if (way > 0)
        insert(set.first, way, tags[set.first + way], frames[set.first + way]);
    return way < 0 ? -1 : set.rule != LRU ? (long)set.first + way : (long)set.first;
}

/* A fill: over the page's own stale copy if one may be there, else over what the rule gives up,
 * whose tag is returned (EMPTY: nothing was lost). */
INLINE word fill(struct set set, word tag, word frame, bool stale) {
    int own = stale ? find(set, tag) : -1;
    if (set.rule != LRU) {
        int way = own >= 0 ? own : victim(set);
        word dropped = own >= 0 ? EMPTY : tags[set.first + way];
        tags[set.first + way] = tag;
        frames[set.first + way] = frame;
        use(set, way);
        return dropped;
    }
    word dropped = own < 0 ? tags[set.first + set.ways - 1] : EMPTY;
    if (own >= 0)
        insert(set.first, own, tag, frame);
    else
        insert(set.first, set.ways - 1, tag, frame); /* apart: here the number moved is known */
    return dropped;
}

static inline word page_of(word of, int size) { return of >> (12 + 9 * size) & LOW_45_BITS; }
static inline word key_of(word context, word page, int size) {
    return context | page << PAGE_SHIFT | (word)size << SIZE_SHIFT;
}

/* The tag of the entry of a set of an L1 that was used last. */
#define RECENT(cache, page)                                                                        \
    ((int)cache##_RULE == LRU ? tags[SET(cache, page).first] : recents[SET(cache, page).number])
#define L1_SET(fetch, size, page) ((fetch) ? SET(FETCH_##size, page) : SET(DATA_##size, page))
#define HAS_2M(fetch) ((fetch) ? FETCH_2M_ENTRIES > 0 : DATA_2M_ENTRIES > 0)
INLINE struct set l2_set(word page) { return SET(L2, page ^ page >> L2_FOLD); }
/* Slot of the L1 entry for gva, the most recent of its set from now on; -1: none. Denies or not. */
INLINE long look_up_l1(bool fetch, word context, word gva) {
    word small = page_of(gva, 0), large = page_of(gva, 1);
    word key = key_of(context, small, 0), large_key = key_of(context, large, 1);
    long slot = fetch ? look_up(SET(FETCH_4K, small), key) : look_up(SET(DATA_4K, small), key);
    if (slot < 0 && HAS_2M(fetch))
        slot = fetch ? look_up(SET(FETCH_2M, large), large_key)
                     : look_up(SET(DATA_2M, large), large_key);
    return slot;
}

static void flush(void) {
    memset(tags, 0xff, (settings[S_flush_nested] ? SLOTS : NESTED) * sizeof *tags);
    memset(recents, 0xff, L2_NUMBER * sizeof *recents);
}

static void purge(word context) { /* drop what it owns */
#define AS_ROW(cache, entries, ways, rule) {cache, cache##_LAST, ways, rule},
    static const struct { int first, last, ways, rule; } rows[] = {SHAPES(AS_ROW)};
    for (size_t row = 0; rows[row].first != NESTED; row++)
        for (int set = rows[row].first; set <= rows[row].last; set += rows[row].ways) {
            int kept = set, end = set + rows[row].ways;
            for (int slot = set; slot < end; slot++)
                if ((tags[slot] ^ context) >> CONTEXT_SHIFT) { /* LRU: close ranks, order kept */
                    kept = rows[row].rule == LRU ? kept : slot;
                    tags[kept] = tags[slot];
                    frames[kept++] = frames[slot];
                } else if (rows[row].rule != LRU)
                    tags[slot] = EMPTY;
            while (kept < end && rows[row].rule == LRU)
                tags[kept++] = EMPTY;
        }
    for (int number = 0; number < L2_NUMBER; number++)
        if (!((recents[number] ^ context) >> CONTEXT_SHIFT))
            recents[number] = EMPTY;
}

/* ---- Pages that were in the L2: why they are not there any more ----
 * A hash table of words, each a tag whose denied kinds are replaced by what happened last. A page
 * that is marked as here but is not was lost to a flush or purge, which so cost nothing here.
 * Eight neighbours share a cache line as a rule; steps of nine words visit all of a power of two. */
enum { IN_L2 = M_flush, STEP = 9 };
static word *known;
static size_t known_size, known_count, known_margin; /* words, used, most that one block adds */
static int known_shift;

INLINE size_t known_place(word key) {
    word page = key >> PAGE_SHIFT;
    word line = ((key >> SIZE_SHIFT & 1) << 60 ^ page >> 3) * 0x9e3779b97f4a7c15ull;
    return (line >> known_shift << 3) | (page & 7);
}

static word *make_known(size_t size) { /* NULL: no memory */
    void *made = mmap(NULL, size * sizeof *known, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (made == MAP_FAILED)
        return NULL;
    madvise(made, size * sizeof *known, MADV_HUGEPAGE);
    memset(made, 0xff, size * sizeof *known);
    known_size = size, known_count = 0;
    known_shift = 64 - __builtin_ctzll(size / 8);
    return made;
}

/* The word of a page, made if it is not there yet: it says what happened. */
INLINE word *known_of(word key) {
    size_t place = known_place(key);
    while ((known[place] ^ key) > DENIED) {
        if (known[place] == EMPTY) {
            known_count++;
            known[place] = (key & ~(word)DENIED) | M_first_touch;
            break;
        }
        place = (place + STEP) & (known_size - 1);
    }
    return known + place;
}

static __attribute__((noinline)) int grow_known(void) {
    word *old = known;
    size_t size = known_size;
    known = make_known(size * 4);
    for (size_t place = 0; known && place < size; place++)
        if (old[place] != EMPTY)
            *known_of(old[place]) = old[place];
    munmap(old, size * sizeof *old);
    return known ? DONE : NO_MEMORY;
}

/* ---- Reads of tables, through the data caches ---- */
static _Alignas(64) uint32_t lines[LINE_SETS + 1][16]; /* address / 64 + 1, 0: none; latest first */
/* What the present walk has cost: references << 48 | cycles. */
static word spent;
static word spent_on_read[4], spent_on_lookup, spent_on_update; /* [l1d, l2, l3, memory] */
enum { SPENT_REFERENCES = 48 };

/* Is the line in the set? It is its first from now on, whether it was there or not. */
INLINE bool has_line(uint32_t *set, int ways, uint32_t line) {
#ifdef __AVX512VL__ /* no branch on where it was: -16 % of hostile */
    __m512i old = _mm512_load_si512(set), new = _mm512_set1_epi32(line);
    unsigned all = (1u << ways) - 1, found = _mm512_cmpeq_epi32_mask(old, new) & all;
    unsigned moved = found ? found ^ (found - 1) : all; /* it, and all before it */
    _mm512_mask_store_epi32(set, moved, _mm512_alignr_epi32(old, new, 15));
#else
    int way = 0;
    while (way < ways && set[way] != line)
        way++;
    bool found = way < ways;
    for (way = found ? way : ways - 1; way > 0; way--)
        set[way] = set[way - 1];
    set[0] = line;
#endif
    return found;
}

/* Read a word of a table; served: the counters of where such reads found their line. */
INLINE word read_word(const word *slot, int64_t *served, int64_t *references) {
    if (!L1D_SETS) {
        spent += spent_on_read[0];
        ++*references;
        return *slot;
    }
    size_t number = (size_t)(slot - memory) >> (LINE_SHIFT - 3);
    uint32_t line = number + 1;
#define HAS_LINE(cache)                                                                            \
    (cache##_SETS && has_line(lines[cache + number % (cache##_SETS + !cache##_SETS)], cache##_WAYS, line))
    int level = HAS_LINE(L1D) ? 0 : HAS_LINE(L2D) ? 1 : HAS_LINE(L3D) ? 2 : 3;
    served[level]++;
    spent += spent_on_read[level];
    return *slot;
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
        spent += spent_on_update;
    }
    return *slot;
}

/* Frame word of the 4 KiB page of gpa, its size that of the nested page; 0: nested fault. */
static word translate_gpa(const struct space *space, word gpa, int kind) {
    int64_t *counters = space->counters;
    bool nested_dirty = settings[S_nested_dirty], found = false;
    word context = (word)space->vm << CONTEXT_SHIFT;
    counters[C_nested_lookup]++;
    spent += spent_on_lookup;
    for (int size = 0; size < 2 && NESTED_ENTRIES && !found; size++) {
        word page = page_of(gpa, size);
        long at = look_up(SET(NESTED, page), key_of(context, page, size));
        found = at >= 0;
        if (found && !(tags[at] >> kind & 1)) {
            counters[C_nested_hit]++;
            return frames[at] | (size ? gpa & IN_LARGE : 0);
        }
    }
    word table = vm_of[space->vm].nested.root, rights = RIGHTS, entry, *slot;
    int level = 4;
    for (fault_gpa = gpa;; level--) {
        slot = slot_at(table, level, gpa);
        entry = read_word(slot, counters + C_nested_l1d, counters + C_nested_reference);
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
        fill(SET(NESTED, page), tag, frame, found);
    return frame | (size ? gpa & IN_LARGE : 0);
}

/* The walk cache that locates tables of a level, 1 to 3. */
INLINE long look_up_tables(int level, word context, word gva) { /* slot; -1: it is not there */
    word page = page_of(gva, level), key = key_of(context, page, 0);
    if (level == 1)
        return PDE_ENTRIES ? look_up(SET(PDE, page), key) : -1;
    if (level == 2)
        return PDPTE_ENTRIES ? look_up(SET(PDPTE, page), key) : -1;
    return PML4E_ENTRIES ? look_up(SET(PML4E, page), key) : -1;
}
INLINE void fill_tables(int level, word context, word gva, word frame) {
    word page = page_of(gva, level), key = key_of(context, page, 0);
    if (level == 1 && PDE_ENTRIES) /* it is not there, or the walk would have begun below */
        fill(SET(PDE, page), key, frame, false);
    else if (level == 2 && PDPTE_ENTRIES)
        fill(SET(PDPTE, page), key, frame, false);
    else if (level == 3 && PML4E_ENTRIES)
        fill(SET(PML4E, page), key, frame, false);
}

INLINE void drop(struct set set, word key) {
    int way = find(set, key);
    if (way < 0)
        return;
    size_t slot = set.first + way, last = set.first + set.ways - 1;
    for (; set.rule == LRU && slot < last; slot++)
        tags[slot] = tags[slot + 1], frames[slot] = frames[slot + 1];
    tags[slot] = EMPTY;
}

/* A fault invalidates the walk-cache entries of its address; TLBs hold none, for it was not mapped. */
static void drop_tables(const struct space *space, word gva) {
    word pde = page_of(gva, 1), pdpte = page_of(gva, 2), pml4e = page_of(gva, 3);
    if (PDE_ENTRIES)
        drop(SET(PDE, pde), key_of(space->context, pde, 0));
    if (PDPTE_ENTRIES)
        drop(SET(PDPTE, pdpte), key_of(space->context, pdpte, 0));
    if (PML4E_ENTRIES)
        drop(SET(PML4E, pml4e), key_of(space->context, pml4e, 0));
}

/* Frame word of the page that a TLB entry for gva covers; 0: a fault, nested if fault_gpa is. */
static word walk(const struct space *space, word gva, int kind) {
    int64_t *counters = space->counters;
    word table = space->root, rights = RIGHTS, entry, *slot;
    int level = 1;
    fault_gpa = 0;
#pragma GCC unroll 3
    for (; level < 4; level++) {
        long at = look_up_tables(level, space->context, gva);
        if (at >= 0) {
            counters[C_pde_hit + level - 1]++;
            table = frames[at] & ADDRESS, rights = frames[at] & RIGHTS;
            break;
        }
    }
    int table_kind = settings[S_nested_dirty] ? WRITE : READ;
    if (level == 4 && space->nested && !(table = ADDRESS & translate_gpa(space, table, table_kind)))
        return 0;
    for (;;) {
        slot = slot_at(table, level, gva);
        entry = read_word(slot, counters + C_guest_l1d, counters + C_guest_reference);
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
        fill_tables(--level, space->context, gva, table | rights);
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
    if (size && fetch)
        fill(SET(FETCH_2M, page), tag, frame, stale);
    else if (size)
        fill(SET(DATA_2M, page), tag, frame, stale);
    else if (fetch)
        fill(SET(FETCH_4K, page), tag, frame, stale);
    else
        fill(SET(DATA_4K, page), tag, frame, stale);
}

INLINE int bucket_of(word cycles) { /* of a walk's latency */
    if (cycles < EXACT)
        return cycles;
    int power = 63 - __builtin_clzll(cycles);
    return EXACT + (power - EXACT_BITS) * PARTS + (cycles >> (power - PART_BITS) & (PARTS - 1));
}

/* L1 has no entry, or (in_l1) one that denies the kind: DONE, and now it admits it; or FAULT. */
static int miss(const struct space *space, word gva, int kind, bool in_l1) {
    int64_t *counters = space->counters;
    bool fetch = kind % SUPERVISOR == FETCH, in_l2 = false;
    counters[C_l2_lookup] += !in_l1;
    for (int size = 0; size < 2 && !in_l1 && !in_l2; size++) {
        word page = page_of(gva, size);
        long at = look_up(l2_set(page), key_of(space->context, page, size));
        in_l2 = at >= 0;
        if (in_l2 && !(tags[at] >> kind & 1)) {
            counters[C_l1_miss_data + fetch]++;
            counters[C_l2_hit]++;
            fill_l1(fetch, space->context, gva, frames[at], false);
            return DONE;
        }
    }
    /* What the fill will write in the table of known pages, unless it is a large one: on its way
     * while the walk waits for its entries (20 %). */
    struct set small = l2_set(page_of(gva, 0));
    __builtin_prefetch(known + known_place(key_of(space->context, page_of(gva, 0), 0)), 1);
    __builtin_prefetch(known + known_place(tags[small.first + (small.rule == LRU ? small.ways - 1 : victim(small))]), 1);
    spent = settings[S_walk_cache_latency];
    word frame = walk(space, gva, kind);
    if (!frame) {
        counters[C_fault_walk]++;
        return FAULT;
    }
    space->histogram[spent >> SPENT_REFERENCES]++;
    space->latencies[bucket_of(spent & ((1ull << SPENT_REFERENCES) - 1))]++;
    counters[in_l1 || in_l2 ? C_dirty_walk : C_walk]++;
    counters[C_l1_miss_data + fetch] += !in_l1;
    counters[C_l2_hit] += in_l2;
    int size = frame >> FRAME_SIZE & 1;
    word page = page_of(gva, size), denied = denied_by[frame & (IS_DIRTY | RIGHTS)];
    word key = key_of(space->context, page, size);
    word dropped = fill(l2_set(page), key | denied, frame, in_l1 || in_l2);
    if (dropped != EMPTY) {
        bool own = !((dropped ^ key) >> CONTEXT_SHIFT);
        space->evictions[dropped >> CONTEXT_SHIFT]++;
        *known_of(dropped) = (dropped & ~(word)DENIED) | (own ? M_capacity : M_other_vm);
    }
    word *here = known_of(key);
    space->misses[*here & DENIED] += !(in_l1 || in_l2);
    *here = key | IN_L2;
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
        word recent = fetch ? RECENT(FETCH_4K, small) : RECENT(DATA_4K, small);
        if (!((recent ^ key_of(context, small, 0)) & care))
            continue;
        word large = page_of(gva, 1);
        if (HAS_2M(fetch)) {
            recent = fetch ? RECENT(FETCH_2M, large) : RECENT(DATA_2M, large);
            if (!((recent ^ key_of(context, large, 1)) & care))
                continue;
        }
        long slot = look_up_l1(fetch, context, gva);
        if (slot >= 0 && !(tags[slot] >> kind & 1))
            continue;
        int status = resolve(vm, gva, kind, slot >= 0);
        if (status != DONE)
            return status;
    }
    return DONE;
}

/* References are the sum of where they were served: counted there only. */
static void add_references(int64_t *counters) {
    counters[C_guest_reference] = counters[C_nested_reference] = 0;
    for (int level = 0; level < 4; level++) {
        counters[C_guest_reference] += counters[C_guest_l1d + level];
        counters[C_nested_reference] += counters[C_nested_l1d + level];
    }
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
        {K_guest_table, C_guest_l1d, S_l1d_read_latency},
        {K_guest_table, C_guest_l2, S_l2_read_latency},
        {K_guest_table, C_guest_l3, S_l3_read_latency},
        {K_guest_table, C_guest_memory, S_memory_read_latency},
        {K_nested_table, C_nested_reference, S_reference_latency},
        {K_nested_table, C_nested_l1d, S_l1d_read_latency},
        {K_nested_table, C_nested_l2, S_l2_read_latency},
        {K_nested_table, C_nested_l3, S_l3_read_latency},
        {K_nested_table, C_nested_memory, S_memory_read_latency},
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
        if ((prices[each].cost == S_nested_tlb_latency && !NESTED_ENTRIES) ||
            (prices[each].cost == S_reference_latency && L1D_SETS))
            cost = 0;
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
        if (status == DONE && (known_count + known_margin) * 2 > known_size)
            status = grow_known();
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
        if (L1D_SETS)
            for (int row = id; row < 2 * vms; row += vms)
                add_references(spaces[row].counters);
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
    int64_t *latencies = histogram + 2 * vms * histogram_width;
    int64_t *misses = latencies + 2 * vms * latency_width;
    int64_t *evictions = misses + 2 * vms * MISSES;
    word host = settings[S_reserve], maddr;
    int status = DONE;
    memset(tags, 0xff, sizeof tags);
    memset(recents, 0xff, sizeof recents);
    memset(states, 0, sizeof states);
    memset(lines, 0, sizeof lines);
    for (int leaf = 2; leaf < 32; leaf++) {
        paths[leaf].keep = ~(word)0, paths[leaf].point = 0;
        for (int node = leaf; node > 1; node /= 2) {
            paths[leaf].keep &= ~(1ull << node / 2);
            paths[leaf].point |= (word)!(node & 1) << node / 2;
        }
    }
    for (int level = 0; level < 4; level++) {
        int64_t latency = settings[L1D_SETS ? S_l1d_read_latency + level : S_reference_latency];
        spent_on_read[level] = 1ull << SPENT_REFERENCES | latency;
    }
    spent_on_lookup = NESTED_ENTRIES ? settings[S_nested_tlb_latency] : 0;
    spent_on_update = settings[S_update_latency];
    for (int bits = 0; bits < 32; bits++) {
        int denied = (bits & MAY_READ ? 0 : 1 << READ) | (bits & MAY_EXECUTE ? 0 : 1 << FETCH) |
                     (bits & MAY_WRITE && bits & IS_DIRTY ? 0 : 1 << WRITE);
        denied_by[bits] = denied << SUPERVISOR | (bits & MAY_USER ? denied : 7);
    }
    reserve = first_taken(0, host);
    machine = (struct pool){host, (settings[S_memory] - host) / LARGE_PAGE, 0, 0, 0};
    /* Where tables stand decides which lines they share: partitions first, then its own space. */
    for (int id = 0; id < vms; id++)
        vm_of[id].nested.root = vm_of[id].length ? small_frame(&reserve) : 0;
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
        vm->nested = (struct tree){NULL, &reserve, &machine, vm->nested.root, EPT_RIGHTS,
                                   EPT_WRITEBACK, given[S_nested_pages], 0, HOST_NO_ROOM};
        status = vm->nested.root || !vm->length ? DONE : HOST_NO_ROOM;
        for (int row = id; row < 2 * vms; row += vms) {
            int owner = row < vms ? row : vms;
            spaces[row] = (struct space){
                (word)owner << CONTEXT_SHIFT, row < vms ? 0 : own.root, out + row * COUNTERS,
                histogram + row * histogram_width, latencies + row * latency_width,
                misses + row * MISSES, evictions + owner * (vms + 1), id,
                row < vms && !native};
        }
    }
    return status < 0 ? status : DONE;
}

/* Replay: 0, or one of the negative codes.
 *
 * addresses, kinds: [vm][access]; kinds 0 to 2; a VM of length 0 never runs. given: settings in the
 * order of names[0], then VM by VM those of names[1]. out, all int64: counters [2 * vms][names[2]],
 * references of a walk [2 * vms][histogram_width], its latency [2 * vms][latency_width], why pages
 * were missed [2 * vms][names[4]], evictions [vms + 1][vms + 1], cycles [vms][names[3]], the clock, nanoseconds of processor time that the loop took. */
int run(int64_t count, const int64_t **addresses, const uint8_t **kinds, const int64_t *lengths,
        const int64_t *given, int64_t *out) {
    if (count < 1 || count > MAX_VMS || given[S_reserve] <= 0 || given[S_memory] < given[S_reserve])
        return BAD_SETTINGS;
    vms = count, settings = given;
    int64_t *cycles = out + (vms + 1) * (vms + 1) +
                      2 * vms * (COUNTERS + histogram_width + latency_width + MISSES);
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
    if (L1D_SETS && bytes >> LINE_SHIFT >= UINT32_MAX)
        return BAD_SETTINGS; /* the number of a line has 32 bits */
    known_margin = BLOCK + settings[S_exit_code_pages] + vms * settings[S_exit_data_pages];
    size_t size = 1 << 12;
    while (size < 4 * known_margin)
        size *= 2;
    memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return BAD_SETTINGS;
    if (!(known = make_known(size))) {
        munmap(memory, bytes);
        return NO_MEMORY;
    }
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
    if (known)
        munmap(known, known_size * sizeof *known);
    return status;
}
