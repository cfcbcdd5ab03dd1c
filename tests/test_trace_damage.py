import numpy as np
import pytest
from trace_samples import random_accesses

from mmu.errors import InputError
from mmu.trace import Raw, compact_trace, open_trace, write_raw


def content(path):
    trace = open_trace(path)
    return trace.compact, trace.accesses, [a.tobytes() for c in trace.chunks() for a in c]


@pytest.fixture(params=["raw", "compact"])
def sound(request, tmp_path):
    write_raw(tmp_path / "raw", [Raw(*random_accesses(6, 1_500))], {"command": "true"})
    compact_trace(tmp_path / "raw", tmp_path / "compact")
    return tmp_path / request.param


def test_a_file_that_is_cut_off_is_refused(sound, tmp_path):
    data = sound.read_bytes()
    for length in [0, 3, 4, 8, 100, len(data) // 2, len(data) - 8, len(data) - 1]:
        (tmp_path / "cut").write_bytes(data[:length])
        with pytest.raises(InputError) as refused:
            open_trace(tmp_path / "cut")
        assert "\n" not in str(refused.value)


def test_a_file_with_something_after_it_is_refused(sound, tmp_path):
    (tmp_path / "long").write_bytes(sound.read_bytes() + b"more")
    with pytest.raises(InputError):
        open_trace(tmp_path / "long")


def test_flipped_bits_never_change_what_is_read_unseen(sound, tmp_path):
    data, before = sound.read_bytes(), content(sound)
    random = np.random.default_rng(11)
    refused = 0
    for place in random.integers(0, len(data), 150):
        broken = bytearray(data)
        broken[place] ^= 1 << int(random.integers(8))
        (tmp_path / "broken").write_bytes(broken)
        try:
            after = content(tmp_path / "broken")
        except InputError:
            refused += 1
        else:  # a bit of no consequence, as in the name of the program that wrote the file
            assert after == before
    assert refused > 50


def test_a_damaged_page_in_the_middle_is_refused_when_it_is_reached(tmp_path, monkeypatch):
    monkeypatch.setattr("mmu.trace.writer.GROUP_RECORDS", 8192)
    write_raw(tmp_path / "t", [Raw(*random_accesses(8, 40_000))])
    data = bytearray((tmp_path / "t").read_bytes())
    data[len(data) * 2 // 3] ^= 64
    (tmp_path / "t").write_bytes(data)
    chunks = open_trace(tmp_path / "t").chunks(8192)
    assert len(next(chunks).kind) == 8192
    with pytest.raises(InputError, match="cannot be read to its end"):
        list(chunks)
