"""The table of block types against gguf-py's, and what the types carry."""

from __future__ import annotations

import gguf
import pytest

from core.block_types import TYPES, carrier
from core.schemes import BITS


@pytest.mark.parametrize("name", TYPES)
def test_blocks_have_the_sizes_that_ggml_gives_them(name: str) -> None:
    kind = gguf.GGMLQuantizationType[name.replace("k", "K").upper()]
    assert (TYPES[name].block, TYPES[name].nbytes) == gguf.GGML_QUANT_SIZES[kind]


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("sym", [True, False])
def test_a_carrier_has_room_for_every_level(bits: int, sym: bool) -> None:
    name = carrier(bits, 64, sym)
    top = 2**bits - 1
    levels = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if sym else (-top, top)
    fits = [kind for kind in ("q4_0", "q5_0", "q8_0") if _holds(kind, levels)]
    assert name == (fits[0] if fits else "")


def _holds(kind: str, levels: tuple[int, int]) -> bool:
    half = 2 ** (TYPES[kind].bits - 1)
    return -half <= levels[0] and levels[1] < half


@pytest.mark.parametrize(("group", "expected"), [(32, "q4_0"), (-1, "q4_0"), (48, "")])
def test_groups_are_whole_blocks(group: int, expected: str) -> None:
    assert carrier(4, group, True) == expected
