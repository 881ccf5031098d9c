"""The predicted loss increase of every layer under every scheme that it might get. A plain value; knows no torch.

Loss increase is additive over layers: that of a whole map is the sum of its layers'. Its unit is nats a token, the
predicted growth of the model's loss; a measure that knows no such unit says so where it is described
(`core.sensitivity.spec`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from core.errors import CorruptFile
from core.model.plans import LayerPlan
from core.schemes import LayerScheme

_VERSION = 1


@dataclass(frozen=True)
class SensitivityTable:
    """What each layer costs.

    Attributes:
        measure: name of the measure.
        layers: names as in the checkpoint.
        schemes: the quantized candidates as they were asked for; a layer got what `LayerScheme.fit` makes of them.
        loss_increase: [layer][scheme], finite and not negative; 16 bits add no loss.
    """

    measure: str
    layers: tuple[str, ...]
    schemes: tuple[LayerScheme, ...]
    loss_increase: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        if len(self.loss_increase) != len(self.layers) or any(
            len(row) != len(self.schemes) for row in self.loss_increase
        ):
            raise ValueError("one row a layer, one value a scheme")
        if any(not (math.isfinite(value) and value >= 0) for row in self.loss_increase for value in row):
            raise ValueError("loss increase is finite and not negative")

    def of(self, layer: str, scheme: LayerScheme) -> float | None:
        """The loss increase of a layer; of another group size or symmetry, that of the same bits. None: not known."""
        row = self._rows.get(layer)
        if not scheme.quantized:
            return 0.0
        if row is None:
            return None
        column = self._columns.get(scheme, self._by_bits.get(scheme.bits))
        return None if column is None else row[column]

    def total(self, plans: Iterable[LayerPlan]) -> float | None:
        """The loss increase of a whole map; None where a layer's is not known."""
        values = [self.of(plan.linear.name, plan.scheme) for plan in plans]
        known = [value for value in values if value is not None]
        return math.fsum(known) if len(known) == len(values) else None

    def to_json(self) -> dict[str, Any]:
        return {
            "version": _VERSION,
            "measure": self.measure,
            "layers": list(self.layers),
            "schemes": [scheme.to_json() for scheme in self.schemes],
            "loss_increase": [list(row) for row in self.loss_increase],
        }

    @cached_property
    def _rows(self) -> dict[str, tuple[float, ...]]:
        return dict(zip(self.layers, self.loss_increase, strict=True))

    @cached_property
    def _columns(self) -> dict[LayerScheme, int]:
        return {scheme: column for column, scheme in enumerate(self.schemes)}

    @cached_property
    def _by_bits(self) -> dict[int, int]:
        return {scheme.bits: column for column, scheme in reversed(list(enumerate(self.schemes)))}


def from_json(value: Any) -> SensitivityTable:
    """A table from its JSON value.

    Raises:
        CorruptFile: it is not one.
    """
    try:
        if value["version"] != _VERSION:
            raise ValueError("version")
        return SensitivityTable(
            measure=str(value["measure"]),
            layers=tuple(map(str, value["layers"])),
            schemes=tuple(LayerScheme(**scheme) for scheme in value["schemes"]),
            loss_increase=tuple(tuple(map(float, row)) for row in value["loss_increase"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptFile("This is not a table of predicted loss increase.", "Measure it again.") from error
