"""Types of the tensors of a model in a GGUF file, and their sizes. Does not depend on torch."""

from __future__ import annotations

import math

from core.block_types import TYPES, carrier
from core.formats.gguf import mixes
from core.formats.names import mix_of
from core.model.headers import TensorInfo
from core.model.tree import ModelTree
from core.schemes import LayerScheme

FLOATS = {"f32": 4, "f16": 2, "bf16": 2}
"""Floating-point types and their bytes."""


def linear_type(scheme: LayerScheme) -> str:
    """Return the block type that represents a quantized layer exactly, or "" if there is none."""
    return scheme.type or carrier(scheme.bits, scheme.group_size, scheme.sym)


def other_type(format_name: str, tree: ModelTree, info: TensorInfo) -> str:
    """Return the type of a tensor that is not a quantized layer of the map.

    Matrices keep their floating-point type, other tensors become 32-bit floats, as llama.cpp requires. With a named
    file type the embedding gets the type that llama.cpp's quantizer chooses.
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
    """Return the bytes of a tensor of a type, whose last dimension consists of whole blocks."""
    count = math.prod(shape)
    if name in FLOATS:
        return count * FLOATS[name]
    return count // TYPES[name].block * TYPES[name].nbytes
