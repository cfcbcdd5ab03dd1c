"""Whatever is in a binary file: a trace, or one line for the user, nothing half written."""

import resource
import time

import pytest
from binary_samples import HEADER, field, gem5, message, number, packet, sample
from hypothesis import given, settings
from hypothesis import strategies as st

from mmu.errors import InputError
from mmu.trace import buffer, dynamorio, import_trace

NAMES = ("champsim", "cloudsuite", "dynamorio", "gem5")
HEADS = {
    "champsim": b"",
    "cloudsuite": b"",
    "dynamorio": sample("dynamorio", 0)[:60],
    "gem5": gem5(),
}


def tried(folder, data, name):
    """Import, and look at what is left and said."""
    (folder / "t").write_bytes(data)
    try:
        made = import_trace(folder / "t", folder / "out", name)
    except InputError as error:
        text = str(error)
        left = sorted(path.name for path in folder.iterdir())
        return (left, text.count("\n"), text.startswith(f"{folder}/t"), len(text) < 1000) == (
            ["t"],
            0,
            True,
            True,
        )
    (folder / "out").unlink()
    return made.accesses > 0


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(NAMES), data=st.binary(max_size=400), begun=st.booleans())
def test_random_bytes(tmp_path_factory, name, data, begun):
    assert tried(tmp_path_factory.mktemp("fuzz"), HEADS[name] * begun + data, name)


EDIT = st.tuples(
    st.sampled_from(["flip", "cut", "drop", "double", "put"]),
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 255),
    st.integers(1, 100),
)


def edited(data, edits):
    """A file with some of its bytes changed, taken out, repeated or put in."""
    data = bytearray(data)
    for how, where, value, length in edits:
        place = int(where * len(data))
        if how == "flip" and data:
            data[place] ^= 1 << value % 8
        elif how == "cut":
            del data[place:]
        elif how == "drop":
            del data[place : place + length]
        elif how == "double":
            data[place:place] = data[place : place + length]
        else:
            data[place:place] = bytes([value]) * length
    return bytes(data)


@settings(max_examples=120, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    seed=st.integers(0, 3),
    edits=st.lists(EDIT, min_size=1, max_size=4),
)
def test_damaged_traces(tmp_path_factory, name, seed, edits):
    data = edited(sample(name, 30, seed), edits)
    folder = tmp_path_factory.mktemp("fuzz")
    assert tried(folder, data, name)
    assert tried(folder, data, None)


@pytest.mark.fuzz
@settings(max_examples=4000, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    seed=st.integers(0, 9),
    edits=st.lists(EDIT, min_size=1, max_size=8),
)
def test_many_damaged_traces(tmp_path_factory, name, seed, edits):
    data = edited(sample(name, 60, seed), edits)
    folder = tmp_path_factory.mktemp("fuzz")
    assert tried(folder, data, name)
    assert tried(folder, data, None)


ENDLESS = {
    "a varint that does not end": gem5() + b"\xff" * (20 << 20),
    "a message as long as memory": gem5() + number((1 << 32) - 1) + bytes(20 << 20),
    "empty messages": gem5() + bytes(20 << 20),
    "messages of unknown fields": gem5() + message(*[field(9, 1)] * 99_999) * 40,
    "a header that does not end": b"gem5" + number(1 << 18) + bytes(20 << 20),
    "nothing but markers": sample("dynamorio", 0)[:60] + b"\x1c\0\x02\0\1\0\0\0\0\0\0\0" * 999_999,
    "zeros": bytes(20 << 20),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", ENDLESS)
def test_what_does_not_end_is_refused_in_bounded_time_and_memory(tmp_path, what):
    data = ENDLESS[what]
    begin, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name in ("gem5", "dynamorio", "champsim", None):
        (tmp_path / "t").write_bytes(data)
        with pytest.raises(InputError):
            import_trace(tmp_path / "t", tmp_path / "out", name)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB
    assert time.monotonic() - begin < 60


def test_a_header_of_many_fields_takes_bounded_time(tmp_path):
    header = message(field(1, b"x"), field(3, 5), *[field(4, b"")] * 100_000)
    (tmp_path / "t").write_bytes(b"gem5" + header + packet(1, 64, 8))
    assert import_trace(tmp_path / "t", tmp_path / "out").accesses == 1


def test_more_threads_than_can_be_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(dynamorio, "MOST_THREADS", 5)
    body = b"".join(dynamorio_owner(thread) for thread in range(1, 10))
    (tmp_path / "t").write_bytes(sample("dynamorio", 0)[:60] + body)
    with pytest.raises(InputError, match="more than 5 threads; import a part of it"):
        import_trace(tmp_path / "t", tmp_path / "out", "dynamorio")


def dynamorio_owner(thread):
    return b"\x16\0\0\0" + thread.to_bytes(8, "little") + b"\x18\0\0\0" + (7).to_bytes(8, "little")


@pytest.mark.parametrize("capacity", [64, 192, 4096])
@pytest.mark.parametrize("name", NAMES)
def test_where_the_buffer_ends_does_not_matter(tmp_path, monkeypatch, name, capacity):
    if name == "gem5":
        capacity = max(capacity, 256 + len(HEADER))
    elif name != "dynamorio":
        capacity = max(capacity, 96)
    (tmp_path / "t").write_bytes(sample(name, 500))
    whole = import_trace(tmp_path / "t", tmp_path / "whole", name)
    monkeypatch.setattr(buffer, "CAPACITY", capacity)
    monkeypatch.setattr(buffer.Buffer.__init__, "__defaults__", (capacity,))
    monkeypatch.setattr(dynamorio.Thread.__init__, "__defaults__", (False, capacity))
    parts = import_trace(tmp_path / "t", tmp_path / "parts", name)
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "parts").read_bytes()
    assert whole.accesses == parts.accesses
