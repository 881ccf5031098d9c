"""Quantization scheme of a linear layer: bits, group size and symmetry. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from core.block_types import TYPES
from core.errors import BadInput

BITS = (2, 3, 4, 8)
UNTOUCHED = 16
PACK_UNIT = 32
"""Inputs and outputs of a quantized layer must be multiples of this, because weights are packed into 32-bit words."""


@dataclass(frozen=True)
class LayerScheme:
    """Bits (2, 3, 4, 8; 16 for unquantized), group size (-1: one group per row) and symmetry of a layer.

    With `type`, a name of `core.block_types`, the layer has the grid of that type, and the other values are those of
    the type.
    """

    bits: int = 4
    group_size: int = 128
    sym: bool = True
    type: str = ""

    def __post_init__(self) -> None:
        if self.type:
            known = TYPES.get(self.type)
            if known is None or (self.bits, self.group_size, self.sym) != (known.bits, known.group, known.sym):
                raise BadInput(f"The block type {self.type!r} is invalid here.", f"Choose from {', '.join(TYPES)}.")
            return
        if type(self.bits) is not int or self.bits not in (*BITS, UNTOUCHED):
            raise BadInput(f"{self.bits!r} bits is not possible.", "Choose 2, 3, 4, 8, or 16 for no quantization.")
        size = self.group_size
        if isinstance(size, bool) or not isinstance(size, int) or (size != -1 and (size < 32 or size % 32)):
            raise BadInput(
                f"Group size {size!r} is not possible.",
                "Choose a multiple of 32 (32, 64 and 128 are usual), or -1 for one group per row.",
            )
        if not isinstance(self.sym, bool):
            raise BadInput(f"Symmetry {self.sym!r} is not true or false.", "Use true or false.")

    @classmethod
    def of_type(cls, name: str) -> LayerScheme:
        """Return the scheme of a block type of GGUF.

        Raises:
            BadInput: the type does not exist.
        """
        known = TYPES.get(name)
        if known is None:
            raise BadInput(f"There is no block type {name!r}.", f"Choose from {', '.join(TYPES)}.")
        return cls(known.bits, known.group, known.sym, known.name)

    @property
    def quantized(self) -> bool:
        """True if the layer has fewer than 16 bits."""
        return self.bits != UNTOUCHED

    @property
    def levels(self) -> int:
        """Number of integer levels, 2^bits."""
        return 1 << self.bits

    @property
    def code_book(self) -> tuple[int, ...]:
        """Value of each integer of a block type with a code book; else empty."""
        return TYPES[self.type].code_book if self.type else ()

    @property
    def reach(self) -> int:
        """Steps from zero to the farther end of the range."""
        if self.code_book:
            return max(map(abs, self.code_book))
        return self.levels // 2 if self.sym else self.levels - 1

    def group_of(self, in_features: int) -> int:
        """Return the number of weights per group in a row of `in_features`."""
        return in_features if self.group_size == -1 else self.group_size

    def groups(self, in_features: int) -> int:
        """Return the number of groups in a row of `in_features` weights."""
        return -(-in_features // self.group_of(in_features))

    def weight_bytes(self, in_features: int, out_features: int) -> int:
        """Return the bytes of a quantized layer; both dimensions must be multiples of 32.

        With K inputs, N outputs, G groups per row and b bits: K N b / 8 for the integers, 2 G N for the float16 scales
        and G N b / 8 for the zero points, which are also stored for symmetric layers. For a block type, its blocks.
        """
        if self.type:
            known = TYPES[self.type]
            return out_features * (in_features // known.block) * known.nbytes
        groups = self.groups(in_features)
        return (in_features * out_features + groups * out_features) * self.bits // 8 + 2 * groups * out_features

    def fit(self, in_features: int, out_features: int) -> tuple[LayerScheme, str]:
        """Return the scheme for a layer of this shape, and the reason if it differs from this one, else "".

        A group size that does not divide the inputs is replaced by 64 or 32, because engines require whole groups.
        Layers whose inputs or outputs are not divisible by 32 stay in 16 bits.
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
        raise AssertionError("unreachable: 32 divides in_features")

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
        """Return a short name, such as `W4 g64 sym`."""
        if not self.quantized:
            return "16 bit"
        if self.type:
            return self.type.upper()
        group = "row" if self.group_size == -1 else f"g{self.group_size}"
        return f"W{self.bits} {group} {'sym' if self.sym else 'asym'}"
