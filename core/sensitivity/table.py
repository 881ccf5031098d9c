"""The table of predicted loss increases of every layer for every candidate scheme. Does not import torch.

Loss increases are assumed to be additive: the loss increase of a bits map is the sum over its layers. The unit is nats
per token, unless the measure has no unit (see `core.sensitivity.spec`).
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
    """The predicted loss increase of each layer for each scheme.

    Attributes:
        measure: Name of the measure.
        layers: Names of the layers in the checkpoint.
        schemes: The quantized candidates as requested; each layer was measured with the result of `LayerScheme.fit`.
        loss_increase: [layer][scheme], finite and not negative; the loss increase at 16 bits is zero.
    """

    measure: str
    layers: tuple[str, ...]
    schemes: tuple[LayerScheme, ...]
    loss_increase: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        if len(self.loss_increase) != len(self.layers) or any(
            len(row) != len(self.schemes) for row in self.loss_increase
        ):
            raise ValueError("one row per layer and one value per scheme are required")
        if any(not (math.isfinite(value) and value >= 0) for row in self.loss_increase for value in row):
            raise ValueError("loss increases must be finite and not negative")

    def of(self, layer: str, scheme: LayerScheme) -> float | None:
        """Return the loss increase of a layer, or None if it was not measured.

        For a group size or symmetry that was not measured, the value of a scheme with the same bits is returned.
        """
        row = self._rows.get(layer)
        if not scheme.quantized:
            return 0.0
        if row is None:
            return None
        column = self._columns.get(scheme, self._by_bits.get(scheme.bits))
        return None if column is None else row[column]

    def total(self, plans: Iterable[LayerPlan]) -> float | None:
        """Return the loss increase of a whole bits map, or None if that of a layer is unknown."""
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
    """Return the table with the given JSON value.

    Raises:
        CorruptFile: The value is not a table of this version.
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
