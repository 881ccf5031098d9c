"""The interface of the grids that the tuning of a block steps."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from core.formats.stored import StoredLayer


class TunedGrid(Protocol):
    """Integers and scales of a weight matrix [out, in], and what is tuned of them."""

    def quantize_into(self, out: Tensor) -> None:
        """Write the dequantized weight into `out`, [out, in]."""

    def step(self, gradient: Tensor, out: Tensor, steps: int, factor_step: float) -> None:
        """Apply one step of descent, and write the new dequantized weight into `out`.

        Args:
            gradient: of the loss by the dequantized weight, [out, in].
            steps: units by which rounding offsets move.
            factor_step: step size of the factors of ranges or scales.
        """

    def state(self) -> tuple[Tensor, ...]:
        """Return copies of the tuned values."""

    def restore(self, state: tuple[Tensor, ...]) -> None:
        """Set the tuned values to those of `state`."""

    def part(self, rows: slice) -> TunedGrid:
        """Return a grid of some rows that shares memory with this one."""

    @property
    def divisible(self) -> bool:
        """True if parts of the grid can be stepped separately."""

    @property
    def started(self) -> bool:
        """True if the grid begins with the levels of a start, and not with plain rounding."""

    def freeze(self, name: str) -> StoredLayer:
        """Return the quantized layer with the present integers and scales."""
