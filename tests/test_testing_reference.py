"""The reference that users get: alone, as slow as it likes, and with the package's answers."""

import ast
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from handtables import HandGuest, HandTables

import mmu
from mmu.testing import reference


def test_it_imports_numpy_and_nothing_of_this_package():
    source = ast.parse(Path(reference.__file__).read_text())
    modules = {n.module for n in ast.walk(source) if isinstance(n, ast.ImportFrom)}
    modules |= {a.name for n in ast.walk(source) if isinstance(n, ast.Import) for a in n.names}
    assert {module.split(".")[0] for module in modules} == {
        "collections", "dataclasses", "enum", "numpy", "typing",
    }  # fmt: skip


def test_outcomes_and_fields_are_those_of_the_package():
    assert {o.name: int(o) for o in reference.Outcome} == {o.name: int(o) for o in mmu.Outcome}
    assert tuple(mmu.Translation.__dataclass_fields__) == reference.FIELDS
    assert asdict(reference.Control()) == asdict(mmu.Control())
    assert asdict(reference.Ept(0x1E)) == asdict(mmu.Ept(0x1E))
    assert asdict(reference.Npt(0)) == asdict(mmu.Npt(0))


def guest():
    guest = HandGuest()
    guest.map(0x1234_5000, 0x8000_0000)
    guest.memory.map_nested(guest.nested_root, 0x8000_0000, 0x7000)
    return guest


@pytest.mark.parametrize("update", [False, True])
def test_it_takes_what_the_package_takes(update):
    """Memory, settings and address as `mmu.translate` has them, and the answer compares equal."""
    made = guest()
    nested = mmu.Ept.at(made.nested_root)
    words = [made.memory.words.copy() for _ in range(2)]
    answers = [
        translate(
            mmu.Memory.from_words(array), 0x1234_5678,
            cr3=made.root, nested=nested, access="write", control=mmu.Control(), update=update,
        )
        for array, translate in zip(words, (mmu.translate, reference.translate), strict=True)
    ]  # fmt: skip
    assert asdict(answers[0]) == asdict(answers[1])
    assert answers[1].maddr == 0x7678
    assert np.array_equal(*words)
    assert (words[0] != made.memory.words).any() == update


def test_memory_is_an_array_a_dictionary_or_anything_that_can_be_read():
    tables = HandTables(8)
    root = tables.take()
    tables.map_native(root, 0x5000, 0x9000)

    class Mine:
        def holds(self, address):
            return address < 8 * len(tables.words)

        def read(self, address):
            return int(tables.words[address // 8])

        def write(self, address, word):
            tables.words[address // 8] = word

    for memory in (tables.words, tables.words.view(np.int64), tables.present(), Mine()):
        answer = reference.translate(memory, 0x5123, cr3=root)
        assert (answer.outcome, answer.maddr) == (reference.Outcome.OK, 0x9123)
    assert reference.translate(tables.words, 0x5000, cr3=1 << 40).outcome.name == "NO_MEMORY"
    assert reference.translate(tables.present(), 0x5000, cr3=1 << 40).outcome.name == "PAGE_FAULT"


@pytest.mark.parametrize("update", [False, True])
def test_sparse_memory_reads_as_zero_where_there_is_no_page(update):
    tables = HandTables(8)
    root = tables.take()
    tables.map_native(root, 0x5000, 0x9000)
    pages = tables.words.reshape(8, 512)
    addresses = np.arange(8, dtype=np.uint64) * np.uint64(4096)
    for gva, cr3 in ((0x5000, root), (0x5000, 1 << 40), (1 << 30, root)):
        answers = []
        for translate in (mmu.translate, reference.translate):
            mine = pages.copy()
            memory = mmu.Memory.from_pages(addresses, mine)
            answers.append((asdict(translate(memory, gva, cr3=cr3, update=update)), mine.tolist()))
        assert answers[0] == answers[1]
