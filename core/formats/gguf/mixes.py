"""The block type of each layer in a named GGUF file type such as Q4_K_M, as llama.cpp's quantizer chooses it.

The rules are those of llama_tensor_get_type in llama.cpp's src/llama-quant.cpp for models without experts. Bits that a
bits map sets explicitly take precedence. Does not depend on torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from core.block_types import TYPES
from core.model.tree import ModelTree
from core.schemes import LayerScheme

_BY_BITS = {2: "q2_k", 3: "q3_k", 4: "q4_k", 8: "q8_0"}
_BY_BITS_LEGACY = {2: "q4_0", 3: "q4_0", 4: "q4_0", 8: "q8_0"}
_ROLES = {
    "v_proj": "value", "value": "value", "qkv_proj": "fused", "c_attn": "fused", "query_key_value": "fused",
    "o_proj": "output", "dense": "output", "down_proj": "down", "w2": "down", "fc2": "down",
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """The position of a layer, as far as a mix depends on it.

    Attributes:
        role: `value`, `fused` (q, k and v in one), `output` (of the attention), `down`, or "" for all others.
        block, blocks: number of the block, and number of blocks.
        shared: query heads that share a key-value head.
    """

    role: str
    block: int
    blocks: int
    shared: int

    @property
    def more(self) -> bool:
        """True if the M mixes give the block more bits: the first and last eighth and every third between."""
        eighth = self.blocks // 8
        return self.block < eighth or self.block >= 7 * self.blocks // 8 or (self.block - eighth) % 3 == 2


def base_type(mix: str) -> str:
    """Return the type that a mix is named after: `q4_k` for `q4_k_m`."""
    return mix if mix in TYPES else mix.rpartition("_")[0]


def place(kind: str, block: int, tree: ModelTree) -> Place:
    """Return the position of the layer called `kind` in a block."""
    text: dict[str, Any] = tree.config.get("text_config") or tree.config
    heads = text.get("num_attention_heads") or 1
    shared = heads // (text.get("num_key_value_heads") or heads)
    return Place(role(kind), block, tree.blocks, shared)


def role(kind: str) -> str:
    """Return the role of the layer called `kind` in a block, as in `Place`."""
    return _ROLES.get(kind.rpartition(".")[2], "")


def layer_type(mix: str, where: Place) -> str:
    """Return the type of a matrix in a block, before the fallback for its shape."""
    base = base_type(mix)
    if where.role == "value":
        return _value_type(mix, base, where)
    if where.role == "down":
        return _down_type(mix, base, where)
    if where.role == "output":
        return {"q2_k": "q3_k", "q3_k_m": "q4_k", "q3_k_l": "q5_k"}.get(mix, base)
    if where.role == "fused":
        return {"q3_k_m": "q4_k", "q3_k_l": "q4_k", "q4_k_m": "q5_k", "q5_k_m": "q6_k"}.get(mix, base)
    return base


def _value_type(mix: str, base: str, where: Place) -> str:
    if mix == "q2_k":
        return "q4_k" if where.shared >= 4 else "q3_k"
    if TYPES[base].code_book and where.shared >= 4:
        return "q5_k"
    if mix == "q3_k_m":
        return "q5_k" if where.block < 2 else "q4_k"
    if mix == "q3_k_l":
        return "q5_k"
    if mix in ("q4_k_m", "q5_k_m") and where.more:
        return "q6_k"
    return "q5_k" if mix == "q4_k_s" and where.block < 4 else base


def _down_type(mix: str, base: str, where: Place) -> str:
    if mix == "q2_k":
        return "q3_k"
    if mix == "q3_k_m":
        return "q5_k" if where.block < where.blocks // 16 else "q4_k"
    if mix == "q3_k_l":
        return "q5_k"
    if mix in ("q4_k_m", "q5_k_m") and where.more:
        return "q6_k"
    return "q5_k" if mix == "q4_k_s" and where.block < where.blocks // 8 else base


def type_for_bits(mix: str, bits: int) -> str:
    """Return the type of a layer whose bits are set in the bits map."""
    base = base_type(mix)
    if bits == TYPES[base].bits:
        return base
    return (_BY_BITS if TYPES[base].nested or TYPES[base].code_book else _BY_BITS_LEGACY)[bits]


def head_type(mix: str, columns: int) -> str:
    """Return the type of the output head or a tied embedding: 6 bits, or 8 if rows are not whole blocks."""
    base = base_type(mix)
    if base == "q8_0" or columns % TYPES[base].block:
        return "q8_0"
    return fitting("q6_k", columns)


def embedding_type(mix: str, columns: int, *, tied: bool) -> str:
    """Return the type of the token embedding."""
    return head_type(mix, columns) if tied else fitting(base_type(mix), columns)


def fitting(name: str, columns: int) -> str:
    """Return the type, or its fallback for rows of that many columns; "" if none fits."""
    known = TYPES[name]
    if columns % known.block == 0:
        return name
    return known.fallback if known.fallback and columns % TYPES[known.fallback].block == 0 else ""


def tuned_as(name: str) -> LayerScheme:
    """The grid on which a layer of this type is tuned: a plain one where that is the same, for other formats' sake."""
    plain = {"q4_0": LayerScheme(4, 32, True), "q8_0": LayerScheme(8, 32, True)}
    return plain.get(name) or LayerScheme.of_type(name)
