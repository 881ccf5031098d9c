"""The block types of GGUF files: how many bits, in what groups, how many bytes. A table, no arithmetic and no torch.

Facts of ggml (ggml-quants.h, ggml-common.h) that need no reading of a file: a row of weights is cut into blocks, a
block into groups that share a scale. Legacy types have blocks of 32 with one float16 scale; K types have blocks of 256
whose groups have small integer scales, multiples of one float16 of the block.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BlockType:
    """One block type.

    Attributes:
        name: as in `gguf:` formats, such as `q4_k`.
        bits: of an integer.
        group: weights that share a scale.
        block: weights of a block; a row must be a multiple of it.
        nbytes: of a block.
        sym: no minimum is stored; levels lie around zero.
        fallback: the type that takes over for a row which is no multiple of the block, "" where none is needed.
    """

    name: str
    bits: int
    group: int
    block: int
    nbytes: int
    sym: bool
    fallback: str = ""

    @property
    def nested(self) -> bool:
        """Whether scales are integers times a float16 of the block (K types)."""
        return self.block > self.group


_ALL = (
    BlockType("q4_0", 4, 32, 32, 18, True),
    BlockType("q4_1", 4, 32, 32, 20, False),
    BlockType("q5_0", 5, 32, 32, 22, True),
    BlockType("q5_1", 5, 32, 32, 24, False),
    BlockType("q8_0", 8, 32, 32, 34, True),
    # What llama.cpp falls back to where a row is no multiple of 256 (tensor_type_fallback in llama-quant.cpp); its
    # IQ4_NL, for q2_k and q3_k, has the size of q4_0.
    BlockType("q2_k", 2, 16, 256, 84, False, "q4_0"),
    BlockType("q3_k", 3, 16, 256, 110, True, "q4_0"),
    BlockType("q4_k", 4, 32, 256, 144, False, "q5_0"),
    BlockType("q5_k", 5, 32, 256, 176, False, "q5_1"),
    BlockType("q6_k", 6, 16, 256, 210, True, "q8_0"),
)

TYPES: dict[str, BlockType] = {item.name: item for item in _ALL}


def carrier(bits: int, group_size: int, sym: bool) -> str:
    """The smallest type that holds integers of a plain scheme exactly, every scale and level; "" if none does.

    A symmetric level lies in -2^(b-1) to 2^(b-1)-1, an asymmetric one less its zero point in -(2^b-1) to 2^b-1; Q4_0
    holds -8 to 7, Q5_0 -16 to 15, Q8_0 -128 to 127, each times a float16 for every 32 weights. Group sizes are
    multiples of 32, or -1 for a row, which is one.
    """
    if group_size != -1 and group_size % 32:
        return ""
    if sym:
        return {2: "q4_0", 3: "q4_0", 4: "q4_0", 8: "q8_0"}.get(bits, "")
    return {2: "q4_0", 3: "q4_0", 4: "q5_0"}.get(bits, "")
