"""Who goes when a set is full, and what using an entry does to that.

    lru             the least recently used; the set itself is the order: see `rows`
    tree-plru       a binary tree over the ways, of which each node points to the half to take from
    rotating-plru   three groups of ways, each with a tree; the group after the one used last gives

With four ways a group, rotating-plru is what was found in the level-2 TLB of Kaby Lake,
"(MRU+1)%3PLRU4"; trees in those of Ivy Bridge and Haswell, and in the L1s of all three. Source: Tatar et
al., "TLB;DR: Enhancing TLB-based Attacks with TLB Desynchronized Reverse Engineering", USENIX Security
2022, and its artifact.

The state of a set is one word, and both rules are tables, a row of four words for each way: using the
way leaves `KEEP` of the state and sets `PUT`; the way is the victim if the state's bits of `MASK` are
`VALUE`. Node k of a group's tree is bit k of its 16 bits, the root being node 1 and its children 2k and
2k + 1; a bit that is set points to the higher ways. Above the groups stands the number of the one used
last, and above that the way used last, to be asked first: most hits are of it, and change nothing (a
replay of sqlite takes 24 % less).
"""

import numpy as np

from mmu.hardware.rows import Words

KEEP, PUT, MASK, VALUE, RULE_FIELDS = range(5)
GROUPS = {"tree-plru": 1, "rotating-plru": 3}
GROUP_BITS = 16
LAST_BITS = 2
LAST_SHIFT = 3 * GROUP_BITS
WAY_SHIFT, WAY_MASK = LAST_SHIFT + LAST_BITS, 63  # the way used last, above the groups


def rule_table(replacement: str, ways: int) -> Words:
    """Return what a rule says of each way: int64 [ways, RULE_FIELDS]; no rows for lru."""
    if replacement == "lru":
        return np.zeros((0, RULE_FIELDS), np.int64)
    groups = GROUPS[replacement]
    of_group = ways // groups
    table = np.zeros((ways, RULE_FIELDS), np.int64)
    for way in range(ways):
        group, inside = divmod(way, of_group)
        path, towards = 0, 0  # the nodes above the way, and those of them that point to it if set
        node, half = 1, of_group // 2
        while half:
            right = inside // half & 1
            bit = 1 << node + group * GROUP_BITS
            path |= bit
            towards |= bit * right
            node, half = 2 * node + right, half // 2
        mask, value, put = path, towards, path ^ towards
        last = 0
        if groups > 1:
            last = (1 << LAST_BITS) - 1 << LAST_SHIFT
            put |= group << LAST_SHIFT
            mask |= last
            value |= (group - 1) % groups << LAST_SHIFT
        kept = ~(path | last | WAY_MASK << WAY_SHIFT)
        table[way] = kept, put | way << WAY_SHIFT, mask, value
    return table
