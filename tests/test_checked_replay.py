"""`mmu replay --check`: a cache that answers what the tables do not say is found, with its access."""

from pathlib import Path
from unittest.mock import patch

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from memory_trace import MemoryTrace
from processors_for_tests import array, cache, processor
from test_replay_equals_naive import maps_of, runs, without_time

import mmu
from mmu import cli
from mmu.config import RunConfig
from mmu.errors import InputError, StaleTranslation
from mmu.run import Replay

MIB, BLOCK = 1 << 20, 4096
READ, WRITE, FETCH = 0, 1, 2
GVA = 0x7F00_1234_5000
RWX, LARGE, ACCESSED, DIRTY = 7, 1 << 7, 1 << 8, 1 << 9
GUEST_ACCESSED, GUEST_DIRTY, GUEST_GLOBAL, WRITABLE = 1 << 5, 1 << 6, 1 << 8, 1 << 1
FRAME = 0xF_FFFF_FFFF_F000
CPU = processor(
    l1_data=[array(4, 4)], l2=[array(16, 4)], nested_tlb=array(8, 8, "4k", "2m"),
    walk_caches={"pde": cache(4), "pdpte": cache(4), "pml4e": cache(4)},
)  # fmt: skip


class Changed(Exception):
    """The table was changed."""


def replay_with(change, kind=READ, again=READ, **fields):
    """Access a page for a block, change the tables behind the caches' backs, and go on."""
    vm = {"trace": "t.parquet", "name": "web", "memory": 64 * MIB, "nested_pages": "4k"} | fields
    config = RunConfig(processor=CPU, vms=[vm], memory=512 * MIB, mode="tagged")
    accesses = [(0, 0, GVA, kind)] * BLOCK + [(0, 0, GVA, again)] * BLOCK
    replay = Replay(config, [MemoryTrace(accesses)], check=True)
    made = []

    def progress(done, total):
        if not made:
            change(replay)
        made.append(done)

    with patch("mmu.run.BLOCKS_PER_SAMPLE", 1):  # it is told progress after each
        result = replay.run(progress)
    assert len(made) > 1  # something came after the change
    return result


def leaf(replay, dimension):
    """Machine address of the last entry of a dimension that translates the page."""
    walk = mmu.translate(replay.memory, GVA, **replay.space("web"))
    return [step.address for step in walk.steps if step.dimension == dimension][-1]


def changing(dimension, change):
    """Change that entry, as somebody would who forgets to invalidate."""

    def do(replay):
        word = leaf(replay, dimension) // 8
        memory = replay.host.machine.memory
        memory[word] = change(int(memory[word]))

    return do


def test_a_page_moved_without_invept_is_met_by_the_next_access():
    with pytest.raises(StaleTranslation) as found:
        replay_with(changing("nested", lambda entry: entry + 0x1000))
    assert found.value.gva == GVA
    text = str(found.value)
    assert f"web: access {BLOCK} of 't.parquet'" in text
    assert "user read of 0x7f0012345000 was answered with 0x" in text


@pytest.mark.parametrize(
    ("dimension", "change", "says"),
    [
        ("guest", lambda entry: entry & ~1, "the tables say a page fault"),
        ("nested", lambda entry: 0, "the tables say a nested violation"),
        ("nested", lambda entry: entry & ~RWX | 2, "the tables say a nested misconfiguration"),
        ("guest", lambda entry: entry & ~WRITABLE, "ur-x;"),
        ("guest", lambda entry: entry & ~4, "a page fault"),
        ("guest", lambda entry: entry - (1 << 63), "urw-, dirty;"),
        ("nested", lambda entry: entry & ~2, "ur-x;"),
        ("guest", lambda entry: entry & ~GUEST_DIRTY, "urwx;"),
        ("nested", lambda entry: entry & ~DIRTY, "urwx;"),
    ],
)
def test_what_takes_away_needs_an_invalidation(dimension, change, says):
    with pytest.raises(StaleTranslation) as found:
        replay_with(changing(dimension, change), kind=WRITE)
    cached, now = str(found.value).split("the tables say")
    assert "4KiB, urwx, dirty;" in cached
    assert says in f"the tables say{now}"


@pytest.mark.parametrize(
    ("dimension", "change"),
    [
        ("guest", lambda entry: entry & ~GUEST_ACCESSED),
        ("nested", lambda entry: entry & ~ACCESSED),
        ("guest", lambda entry: entry | GUEST_DIRTY),
    ],
)
def test_what_only_gives_may_be_seen_late(dimension, change):
    """SDM: no invalidation is needed for it, and accessed bits may stay clear until the next walk."""
    assert replay_with(changing(dimension, change)).count("accesses") == 2 * BLOCK


@pytest.mark.parametrize("dimension", ["guest", "nested"])
def test_a_write_that_would_be_lost_to_dirty_logging_is_met(dimension):
    """A dirty bit cleared without an invalidation: the next write goes through the cache unlogged."""
    clear = {"guest": ~GUEST_DIRTY, "nested": ~DIRTY}[dimension]
    with pytest.raises(StaleTranslation, match="user write"):
        replay_with(changing(dimension, lambda entry: entry & clear), kind=WRITE, again=WRITE)


def test_rights_that_were_added_are_found_by_the_walk_of_the_access_that_needs_them():
    taken_away = changing("nested", lambda entry: entry & ~2)
    given_back = changing("nested", lambda entry: entry | 2)

    def change(replay):
        word = leaf(replay, "nested") // 8
        taken_away(replay)
        for slot in np.flatnonzero(replay.host.machine.tag[0] != -1):  # as an invalidation would
            replay.host.machine.tag[0, slot] = -1
        assert not replay.host.machine.memory[word] & 2
        given_back(replay)

    assert replay_with(change, again=WRITE).count("accesses") == 2 * BLOCK


@settings(max_examples=4 if numba.config.DISABLE_JIT else 30, deadline=None)
@given(runs())
def test_checking_changes_no_count_and_finds_nothing_in_sound_runs(run):
    config, accesses = run
    maps = maps_of(config, accesses)
    plain = Replay(config, [MemoryTrace(a) for a in accesses], page_maps=maps).run()
    checked = Replay(config, [MemoryTrace(a) for a in accesses], page_maps=maps, check=True).run()
    assert without_time(checked) == without_time(plain)


def test_a_compact_trace_has_too_few_addresses_to_be_checked():
    config = RunConfig(
        processor=CPU, vms=[{"trace": "web.parquet", "memory": 64 * MIB}], memory=512 * MIB
    )
    trace = MemoryTrace([(0, 0, GVA, READ)], compact=True)
    with pytest.raises(InputError, match=r"--check: found 'web.parquet', a compact trace"):
        Replay(config, [trace], check=True)


def test_the_command_line_checks_a_raw_trace(tmp_path, capsys):
    path = str(tmp_path / "a.parquet")
    assert cli.main(["trace", "synth", "zipf", "-o", path, "--accesses", "4000"]) == 0

    def replayed(*options):
        capsys.readouterr()
        assert cli.main(["replay", path, "--quiet", *options]) == 0
        return capsys.readouterr().out

    assert replayed("--check") == replayed()
    assert cli.main(["replay", path, "--check"]) == 0
    assert capsys.readouterr().out.endswith("the caches answered what the tables say.\n")


def test_the_command_line_hands_the_option_on(capsys):
    """A sound run's output is the same without checks: a trace that cannot be checked tells."""
    path = Path(__file__).parent.parent / "traces" / "xz.parquet"
    assert cli.main(["replay", str(path), "--quiet", "--check"]) == 2
    error = capsys.readouterr().err
    assert "--check: found" in error
    assert "a compact trace" in error
