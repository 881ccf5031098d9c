"""Table of the block types of GGUF files: bits, group size, block size and bytes.

From ggml (ggml-quants.h, ggml-common.h): a row of weights is divided into blocks, and a block into groups that share a
scale. Legacy types and IQ4_NL have blocks of 32 with one float16 scale; K types and IQ4_XS have blocks of 256 whose
groups have integer scales, multiples of one float16 scale per block. The integers of IQ4_NL and IQ4_XS are indices of a
code book. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BlockType:
    """A block type of GGUF.

    Attributes:
        name: name as in `gguf:` formats, such as `q4_k`.
        bits: bits per weight, without scales.
        group: weights that share a scale.
        block: weights per block; rows must be a multiple of it.
        nbytes: bytes per block.
        sym: no minimum is stored; levels are centred on zero.
        fallback: type for rows that are not a multiple of the block, "" if not needed.
        code_book: value of each integer, ascending, of types whose levels are not evenly spaced; else empty.
    """

    name: str
    bits: int
    group: int
    block: int
    nbytes: int
    sym: bool
    fallback: str = ""
    code_book: tuple[int, ...] = ()

    @property
    def nested(self) -> bool:
        """True if scales are integers times a float16 scale of the block (K types, IQ4_XS)."""
        return self.block > self.group


_IQ4 = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)

_ALL = (
    BlockType("q4_0", 4, 32, 32, 18, True),
    BlockType("q4_1", 4, 32, 32, 20, False),
    BlockType("q5_0", 5, 32, 32, 22, True),
    BlockType("q5_1", 5, 32, 32, 24, False),
    BlockType("q8_0", 8, 32, 32, 34, True),
    # Fallbacks of llama.cpp for rows that are not a multiple of 256 (tensor_type_fallback in llama-quant.cpp); its
    # IQ4_NL, for q2_k and q3_k, has the size of q4_0.
    BlockType("q2_k", 2, 16, 256, 84, False, "q4_0"),
    BlockType("q3_k", 3, 16, 256, 110, True, "q4_0"),
    BlockType("q4_k", 4, 32, 256, 144, False, "q5_0"),
    BlockType("q5_k", 5, 32, 256, 176, False, "q5_1"),
    BlockType("q6_k", 6, 16, 256, 210, True, "q8_0"),
    BlockType("iq4_nl", 4, 32, 32, 18, True, "", _IQ4),
    BlockType("iq4_xs", 4, 32, 256, 136, True, "iq4_nl", _IQ4),
)

TYPES: dict[str, BlockType] = {item.name: item for item in _ALL}


def carrier(bits: int, group_size: int, sym: bool) -> str:
    """Return the smallest type that represents all levels and scales of a plain scheme exactly; "" if there is none.

    Symmetric levels are -2^(b-1) to 2^(b-1)-1; asymmetric levels minus the zero point are -(2^b-1) to 2^b-1. Q4_0
    represents -8 to 7, Q5_0 -16 to 15 and Q8_0 -128 to 127, with a float16 scale per 32 weights. Group sizes are
    multiples of 32, or -1 for whole rows, whose length is a multiple of 32.
    """
    if group_size != -1 and group_size % 32:
        return ""
    if sym:
        return {2: "q4_0", 3: "q4_0", 4: "q4_0", 8: "q8_0"}.get(bits, "")
    return {2: "q4_0", 3: "q4_0", 4: "q5_0"}.get(bits, "")
