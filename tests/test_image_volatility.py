"""What Volatility 3 reads from ELF cores and LiME dumps at an address, against what is read here."""

import random

import pytest

pytest.importorskip("volatility3")

import numpy as np
from image_files import elf, lime
from volatility3.framework import contexts
from volatility3.framework.layers import elf as volatility_elf
from volatility3.framework.layers import lime as volatility_lime
from volatility3.framework.layers import physical

from mmu import Memory

LAYERS = {"elf": volatility_elf.Elf64Layer, "lime": volatility_lime.LimeLayer}


def layer(kind, content):
    context = contexts.Context()
    context.add_layer(physical.BufferDataLayer(context, "file", "base", content))
    context.config["image.base_layer"] = "base"
    return LAYERS[kind](context, "image", "image")


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("seed", range(5))
def test_the_same_words_stand_at_the_same_addresses(tmp_path, kind, seed):
    draw = random.Random(seed)
    address, parts = 0, []
    for _ in range(draw.randrange(1, 9)):
        address += draw.choice((0, 0x1000, 0x400, 1 << 30, 1 << 40))
        data = draw.randbytes(draw.choice((0x400, 0x1000, 0x9C00)))
        parts.append((address, data))
        address += len(data)
    content = lime(parts) if kind == "lime" else elf([(a, d, len(d)) for a, d in parts], b"n" * 12)
    theirs = layer(kind, content)
    path = tmp_path / "image"
    path.write_bytes(content)
    memory = Memory.open(path)
    assert sum(int(last - first) + 1 for first, last in memory.ranges()) == sum(
        len(data) for _, data in parts
    )
    for first, count, index in memory.extents.tolist():
        words = np.frombuffer(theirs.read(8 * first, 8 * count), np.int64)
        assert np.array_equal(words, memory.words[index : index + count])
    for first, last in memory.ranges().tolist():
        assert theirs.is_valid(first, last + 1 - first)
        assert not theirs.is_valid(last + 1)
