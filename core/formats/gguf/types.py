"""The type that each tensor of a model gets in a GGUF file, and the bytes it takes. No torch and no files."""

from __future__ import annotations

import math

from core.block_types import TYPES, carrier
from core.formats.gguf import mixes
from core.formats.names import mix_of
from core.model.headers import TensorInfo
from core.model.tree import ModelTree
from core.schemes import LayerScheme

FLOATS = {"f32": 4, "f16": 2, "bf16": 2}
"""Types that are plain numbers, and their bytes."""


def linear_type(scheme: LayerScheme) -> str:
    """The block type that holds a quantized layer exactly; "" where none does."""
    return scheme.type or carrier(scheme.bits, scheme.group_size, scheme.sym)


def other_type(format_name: str, tree: ModelTree, info: TensorInfo) -> str:
    """The type of a tensor that is no quantized layer of the map.

    Matrices keep the floating-point type that they have, everything else becomes 32 bits, as llama.cpp wants it. With a
    named type the embedding goes along as llama.cpp's quantizer does it.
    """
    if len(info.shape) != 2:
        return "f32"
    mix = mix_of(format_name)
    if mix and info.name == f"{tree.embedding}.weight":
        found = mixes.embedding_type(mix, info.shape[-1], tied=tree.tied)
        if found:
            return found
    return {"F16": "f16", "BF16": "bf16"}.get(info.dtype, "f32")


def type_bytes(name: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor of a type; blocks run along its last dimension, which they divide."""
    count = math.prod(shape)
    if name in FLOATS:
        return count * FLOATS[name]
    return count // TYPES[name].block * TYPES[name].nbytes
