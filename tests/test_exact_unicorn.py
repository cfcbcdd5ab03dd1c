"""The MMU of Unicorn, which is QEMU's, on random tables: outcome, address, accessed and dirty bits.

It is asked by running a load, a store or an instruction at the address, as user and as supervisor.
Where it cannot be asked, or differs from the manual:

- A page fault's error code cannot be read; CR2 is, and names the page.
- Physical addresses have 40 bits.
- It marks the entry of a 1 GiB page as accessed before it checks rights and the bits reserved in such
  an entry alone (QEMU 5 treats it as one of a table so far), and those of smaller pages after.
- A table outside memory reads as zeros or ends the emulation: no outcome is compared there.
- Pages that hold tables are not written to, nor run: the next case would find them changed.
"""

import random

import numpy as np
import pytest

pytest.importorskip("unicorn")

from exact import ACCESSES, INTERPRETED, PAGE, PS, XD, A, D, P, package
from unicorn_mmu import Machine

import mmu
from mmu.testing.reference import Control

SIZE, TABLES, DATA = 4 << 20, 12, 1 << 20
NO_ANSWER = "NO_MEMORY"


def instruction(place):
    """`mov eax, place` and three no-ops: a word that tells where it is, read or executed."""
    return 0xB8 | place << 8 | 0x909090 << 40


@pytest.fixture(scope="module")
def machines():
    made = {user: Machine(SIZE, user) for user in (True, False)}
    words = np.array([instruction(place) for place in range(DATA, SIZE, 8)], np.uint64)
    for machine in made.values():
        machine.uc.mem_write(DATA, words.tobytes())
    return made


def entry(random, level):
    """An entry that mostly leads on: to a table, or to a frame of the data."""
    bits = random.choice((7, 7, 7, 7, 7, 7, 5, 3, 1, 6, 0)) | random.choice((0, 0, A, A | D, D))
    bits |= random.choice((0,) * 5 + (1 << 8, 1 << 9, 1 << 62, 1 << 52, 1 << 3, 1 << 4))
    if random.random() < 0.1:
        bits |= XD
    if random.random() < 0.05:
        bits ^= 1 << random.randrange(64)
    if level > 1 and random.random() < 0.2:
        frame = random.choice((0x20_0000, 0x20_0000, 0, 0x1000, 0x20_1000, 0x8000_0000, 1 << 39))
        return frame | bits | PS
    if level == 1:
        place = random.randrange(DATA, SIZE, PAGE)
        return (place if random.random() < 0.95 else random.getrandbits(39) & ~0xFFF) | bits
    return random.randrange(1, TABLES) * PAGE | bits


def image(random, link):
    """Tables at pages 1 to 11, of no fixed level, each with entries at 0 to 3, 256 and 510."""
    words = np.zeros(TABLES * 512, np.uint64)
    for table in range(1, TABLES):
        for index in (0, 1, 2, 3, 256, 510):
            words[table * 512 + index] = entry(random, random.choice((1, 2, 3, 4, 4)))
        words[table * 512 + 511] = link
    return words


def address(random, la57):
    """Addresses whose indices have entries, as a rule canonical; of a word."""
    levels = 5 if la57 else 4
    gva = 0
    for level in range(levels, 0, -1):
        choices = (0, 1, 2, 3, 256, 510) if level == levels else (0, 1, 2, 3)
        gva |= random.choice(choices) << (3 + 9 * level)
    if gva >> (11 + 9 * levels):
        gva |= (1 << 64) - (1 << (12 + 9 * levels))
    if random.random() < 0.03:
        gva ^= 1 << random.randrange(40, 64)
    return gva | random.randrange(0, PAGE, 8)


def early(step, control):
    """Whether Unicorn has marked the entry before it found the fault: see above."""
    reserved = ((1 << 52) - (1 << 40)) | (0 if control.nxe else XD)
    return step.level == 3 and step.entry & (P | PS) == P | PS and not step.entry & reserved


def compare(machines, random, images, cases):
    """Count the cases of each outcome; Unicorn and the package must agree in each."""
    outcomes = {}
    held = bytes(machines[True].uc.mem_read(0, SIZE + 0x6000))
    whole = np.frombuffer(held, np.uint64).copy()
    memory = mmu.Memory.from_words(whole)
    for _ in range(images):
        control = Control(
            *(random.random() < share for share in (0.7, 0.8, 0.3, 0.3, 0.3, 0.3)), maxphyaddr=40
        )
        words = image(random, machines[True].link[5 if control.la57 else 4])
        for machine in machines.values():
            machine.uc.mem_write(0, words.tobytes())
        whole[: len(words)] = words
        for _ in range(cases):
            user, access = random.random() < 0.5, random.choice(ACCESSES)
            machine, gva = machines[user], address(random, control.la57)
            cr3 = random.randrange(1, TABLES) * PAGE
            t = mmu.translate(
                memory, gva, cr3=cr3, access=access, user=user, control=package(control)
            )
            name = (hex(gva), hex(cr3), access, user, control, t)
            inside = t.maddr is not None and DATA <= t.maddr < SIZE
            tables = t.maddr is not None and not inside and t.maddr < 8 * len(whole)
            if t.outcome.name == NO_ANSWER or tables:
                continue
            old = instruction(t.maddr) if inside else 0
            ends, value = machine.access(gva, access, control, cr3, value=0x123_4567_89AB)
            outcomes[t.outcome.name] = outcomes.get(t.outcome.name, 0) + 1
            if t.outcome == mmu.Outcome.OK and not inside:
                assert "UNMAPPED" in ends, name
            else:
                assert ends == t.outcome.name, (name, ends)
            if ends == "PAGE_FAULT":
                assert value >> 12 == gva >> 12, name
            if inside and access == "read":
                assert value == old, name
            if inside and access == "fetch":
                assert value == t.maddr, name
            if inside and access == "write":
                assert machine.read(t.maddr) == 0x123_4567_89AB, name
                machine.write(t.maddr, old)
            found = np.frombuffer(bytes(machine.uc.mem_read(0, words.nbytes)), np.uint64)
            changed = {8 * int(i): int(found[i]) for i in np.flatnonzero(found != words)}
            for place in changed:
                machine.write(place, int(words[place // 8]))
            expected = dict(t.updates)
            if t.outcome == mmu.Outcome.PAGE_FAULT and early(t.steps[-1], control):
                place, leaf = t.steps[-1].address, t.steps[-1].entry | A
                expected |= {} if leaf == int(words[place // 8]) else {place: leaf}
            assert changed == expected or (t.outcome == mmu.Outcome.OK and not inside), name
    return outcomes


@pytest.mark.parametrize("seed", range(4))
def test_random_tables_are_translated_as_unicorn_does(machines, seed):
    outcomes = compare(machines, random.Random(seed), images=2 if INTERPRETED else 40, cases=20)
    assert INTERPRETED or set(outcomes) == {"OK", "PAGE_FAULT", "NOT_CANONICAL"}


@pytest.mark.fuzz
def test_many_random_tables_are_translated_as_unicorn_does(machines):
    compare(machines, random.Random(4), images=200, cases=20)
