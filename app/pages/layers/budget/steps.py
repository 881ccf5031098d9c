"""The possible amounts of a budget and their units: bits per weight, bytes of the files, bytes of memory.

Pure functions without Qt.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from core.allocation.request import BudgetKind
from core.bitsmap import BitsMap
from core.estimation import sizes
from core.estimation.goals import Footprint, conversation_bytes
from core.model.tree import ModelTree, resolve_schemes

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_EVEN: Final = 200
"""Number of steps between the ends of the range before a measurement."""


@dataclass(frozen=True)
class BudgetUnit:
    """The unit of an amount: its suffix, its scale, and the number of decimals."""

    suffix: str
    scale: float
    decimals: int


@dataclass(frozen=True)
class BudgetSteps:
    """The possible values of one kind of budget in ascending order."""

    kind: BudgetKind
    values: Sequence[float] = field(default=())

    @property
    def unit(self) -> BudgetUnit:
        """The unit that fits the largest value."""
        if self.kind == "bpw":
            return BudgetUnit("bits", 1.0, 2)
        most = self.values[-1] if self.values else 1e9
        return (
            BudgetUnit("GB", 1e9, 2)
            if most >= 2e9
            else BudgetUnit("MB", 1e6, 1)
            if most >= 2e6
            else BudgetUnit("kB", 1e3, 1)
        )

    def place(self, value: float) -> int:
        """Return the index of the last step that is not above `value`; 0 if all are above it."""
        return max(0, bisect.bisect_right(self.values, value * (1 + 1e-9)) - 1)


def even_steps(
    tree: ModelTree, default: BitsMap, choices: Sequence[int], format_name: str, kind: BudgetKind
) -> BudgetSteps:
    """Return even steps from all layers at the fewest bits to all at the most, used without a curve."""
    ends = []
    for bits in (min(choices), max(choices)):
        plans = resolve_schemes(tree, BitsMap(replace(default.default, bits=bits)))
        size = sizes.output_size(tree, plans, format_name)
        ends.append(_value(kind, size.total, size.effective_bits if bits < 16 else 16.0, overhead(tree)))
    low, high = ends
    return BudgetSteps(kind, tuple(low + (high - low) * step / _EVEN for step in range(_EVEN + 1)))


def curve_steps(kind: BudgetKind, totals: ArrayLike, bits: ArrayLike, besides: int) -> BudgetSteps:
    """Return the steps of a Pareto curve from the bytes and bits of its points and the other memory in bytes."""
    import numpy as np  # already imported if there is a curve

    values = np.asarray(bits, float) if kind == "bpw" else np.asarray(totals, float) + besides * (kind == "ram")
    values = np.sort(values)  # not `np.unique`, whose first call imports modules
    return BudgetSteps(kind, tuple(values[np.diff(values, prepend=-1.0) > 0].tolist()))


def overhead(tree: ModelTree) -> int:
    """Return the bytes of memory that inference needs in addition to the tensors of the output."""
    return Footprint(0, conversation_bytes(tree)).total


def _value(kind: BudgetKind, total: int, bits: float, besides: int) -> float:
    return bits if kind == "bpw" else float(total + (besides if kind == "ram" else 0))
