"""The translation layer of Volatility 3, made for memory images, on random 4-level tables.

It answers what is mapped where, whoever asks: it knows neither rights nor privilege, and checks neither
canonical form nor reserved bits. It is not asked about addresses where those decide; a page outside
memory is none to it.
"""

import random

import pytest

pytest.importorskip("volatility3")

import numpy as np
from exact import PAGE, PS, P, U, W
from volatility3.framework import contexts, exceptions
from volatility3.framework.layers import intel, physical

import mmu

TABLES, MEMORY = 12, 16


def image(random):
    words = np.zeros(512 * MEMORY, np.uint64)
    for table in range(1, TABLES):
        for index in (0, 1, 2, 3, 256, 510):
            entry = random.randrange(1, MEMORY) * PAGE
            if random.random() < 0.15:
                entry = random.choice((0, 0x20_0000, 0x4000_0000)) | PS
            words[table * 512 + index] = entry | random.choice((P | W | U, P | W | U, P, 0))
    return words


def layer(words, cr3):
    """The layer that translates by the tables at cr3."""
    context = contexts.Context()
    context.add_layer(physical.BufferDataLayer(context, "physical", "base", words.tobytes()))
    context.config["virtual.memory_layer"] = "base"
    context.config["virtual.page_map_offset"] = cr3
    return intel.Intel32e(context, "virtual", "virtual")


@pytest.mark.parametrize("seed", range(2))
def test_random_tables_map_what_volatility_says_they_map(seed):
    draw, compared = random.Random(seed), 0
    for _ in range(30):
        words = image(draw)
        memory = mmu.Memory.from_words(words)
        for _ in range(4):
            cr3 = draw.randrange(1, TABLES) * PAGE
            virtual = layer(words, cr3)
            for _ in range(20):
                gva = draw.choice((0, 1, 2, 3, 256, 510)) << 39 | draw.randrange(PAGE)
                gva |= sum(draw.randrange(4) << shift for shift in (12, 21, 30))
                gva |= 0xFFFF << 48 if gva >> 47 else 0
                t = mmu.translate(memory, gva, cr3=cr3, user=False)
                if (t.error_code or 0) & 8 or t.outcome == mmu.Outcome.NO_MEMORY:
                    continue
                try:
                    found = virtual.translate(gva)[0]
                except exceptions.InvalidAddressException:
                    found = None
                outside = t.maddr is not None and t.maddr >= words.nbytes
                assert found == (None if outside else t.maddr), (hex(gva), hex(cr3), t)
                compared += found is not None
    assert compared > 100
