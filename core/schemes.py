"""How one linear layer is stored: bits, group size, symmetry. Pure values, no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from core.block_types import TYPES
from core.errors import BadInput

BITS = (2, 3, 4, 8)
UNTOUCHED = 16
PACK_UNIT = 32
"""Inputs and outputs of a quantized layer are multiples of this: the packed words hold 32 bits."""


@dataclass(frozen=True)
class LayerScheme:
    """Bits (2, 3, 4, 8; 16 leaves the layer alone), group size (-1: one group a row), symmetry.

    With a `type`, one of `core.block_types`, the grid is that type's own, and the other three are what it has.
    """

    bits: int = 4
    group_size: int = 128
    sym: bool = True
    type: str = ""

    def __post_init__(self) -> None:
        if self.type:
            known = TYPES.get(self.type)
            if known is None or (self.bits, self.group_size, self.sym) != (known.bits, known.group, known.sym):
                raise BadInput(f"The block type {self.type!r} is not possible here.", f"There are {', '.join(TYPES)}.")
            return
        if type(self.bits) is not int or self.bits not in (*BITS, UNTOUCHED):
            raise BadInput(f"{self.bits!r} bits is not possible.", "Choose 2, 3, 4, 8, or 16 to leave a layer alone.")
        size = self.group_size
        if isinstance(size, bool) or not isinstance(size, int) or (size != -1 and (size < 32 or size % 32)):
            raise BadInput(
                f"Group size {size!r} is not possible.",
                "Choose a multiple of 32 (32, 64 and 128 are usual), or -1 for one group a row.",
            )
        if not isinstance(self.sym, bool):
            raise BadInput(f"Symmetry {self.sym!r} is not true or false.", "Use true or false.")

    @classmethod
    def of_type(cls, name: str) -> LayerScheme:
        """The grid of a block type of GGUF.

        Raises:
            BadInput: there is no such type.
        """
        known = TYPES.get(name)
        if known is None:
            raise BadInput(f"There is no block type {name!r}.", f"Choose from {', '.join(TYPES)}.")
        return cls(known.bits, known.group, known.sym, known.name)

    @property
    def quantized(self) -> bool:
        return self.bits != UNTOUCHED

    @property
    def levels(self) -> int:
        """Number of integer levels, 2^bits."""
        return 1 << self.bits

    def group_of(self, in_features: int) -> int:
        """Weights that share one scale in a row of `in_features`."""
        return in_features if self.group_size == -1 else self.group_size

    def groups(self, in_features: int) -> int:
        """Number of groups in a row of `in_features` weights."""
        return -(-in_features // self.group_of(in_features))

    def weight_bytes(self, in_features: int, out_features: int) -> int:
        """Bytes of integers, scales and zero points of a quantized linear; both widths are multiples of 32.

        K inputs, N outputs, G groups, b bits: K*N*b/8 for the integers, 2*G*N for the scales in float16 and G*N*b/8
        for the zero points, which are stored for symmetric layers as well. Of a block type: its blocks.
        """
        if self.type:
            known = TYPES[self.type]
            return out_features * (in_features // known.block) * known.nbytes
        groups = self.groups(in_features)
        return (in_features * out_features + groups * out_features) * self.bits // 8 + 2 * groups * out_features

    def fit(self, in_features: int, out_features: int) -> tuple[LayerScheme, str]:
        """The scheme that a layer of this shape can really have, and why it differs ("" if it does not).

        A group size that does not divide the inputs becomes the largest of 64 and 32 that does: engines
        assume whole groups. A layer with inputs or outputs not divisible by 32 stays in 16 bits.
        """
        if not self.quantized:
            return self, ""
        if self.type:
            return self._fit_type(in_features)
        if in_features % PACK_UNIT or out_features % PACK_UNIT:
            return replace(
                self, bits=UNTOUCHED
            ), f"{out_features}x{in_features} is not divisible by 32: left in 16 bits"
        if self.group_size == -1 or in_features % self.group_size == 0:
            return self, ""
        for size in (64, 32):
            if size < self.group_size and in_features % size == 0:
                return replace(self, group_size=size), f"group {self.group_size} does not divide {in_features}: {size}"
        raise AssertionError("32 divides every width that got here")

    def _fit_type(self, in_features: int) -> tuple[LayerScheme, str]:
        known = TYPES[self.type]
        if in_features % known.block == 0:
            return self, ""
        if known.fallback and in_features % TYPES[known.fallback].block == 0:
            return LayerScheme.of_type(known.fallback), (
                f"{known.block} does not divide {in_features}: {known.fallback.upper()} in place of {self.label()}"
            )
        return LayerScheme(bits=UNTOUCHED), f"32 does not divide {in_features}: left in 16 bits"

    def to_json(self) -> dict[str, Any]:
        values: dict[str, Any] = {"bits": self.bits, "group_size": self.group_size, "sym": self.sym}
        return {**values, "type": self.type} if self.type else values

    def label(self) -> str:
        """Short name for people, such as `W4 g64 sym`."""
        if not self.quantized:
            return "16 bit"
        if self.type:
            return self.type.upper()
        group = "row" if self.group_size == -1 else f"g{self.group_size}"
        return f"W{self.bits} {group} {'sym' if self.sym else 'asym'}"
