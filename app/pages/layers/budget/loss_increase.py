"""The predicted loss increase of each layer, prepared for views that need all of them after every edit.

Maps a `SensitivityTable` to the linears of one tree, in their order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cached_property

from core.schemes import LayerScheme
from core.sensitivity.table import SensitivityTable


class LayerSensitivity:
    """The rows of a sensitivity table by the position of the layer; `names` are the names of the layers."""

    def __init__(self, table: SensitivityTable, names: Iterable[str]) -> None:
        self.table = table
        known = dict(zip(table.layers, table.loss_increase, strict=True))
        self._rows = list(map(known.get, names))
        self._columns: dict[LayerScheme, int | None] = {}

    def at(self, layer: int) -> list[tuple[LayerScheme, float]]:
        """Return the loss increase of a layer for every candidate scheme, fewest bits first; empty if unknown."""
        row = self._rows[layer]
        if row is None:
            return []
        return sorted(zip(self.table.schemes, row, strict=True), key=lambda pair: pair[0].bits)

    def now(self, kinds: Sequence[int], schemes: Sequence[LayerScheme]) -> list[float]:
        """Return the loss increase of all layers for their schemes `schemes[kinds[layer]]`, as `SensitivityTable.of`.

        NaN if it is unknown.
        """
        columns = list(map(self._column, schemes))
        rest = [math.nan if scheme.quantized else 0.0 for scheme in schemes]
        rows = self._rows
        return [
            row[column] if row is not None and (column := columns[kind]) is not None else rest[kind]
            for row, kind in zip(rows, kinds, strict=True)
        ]

    @cached_property
    def sensitivity(self) -> list[float]:
        """The sensitivity of each layer: its loss increase at the fewest bits of the table; NaN if unknown."""
        if not self.table.schemes:
            return [math.nan] * len(self._rows)
        bits = [scheme.bits for scheme in self.table.schemes]
        column = bits.index(min(bits))
        return [math.nan if row is None else row[column] for row in self._rows]

    def _column(self, scheme: LayerScheme) -> int | None:
        """Return the column of a scheme: the same scheme, or the first with as many bits; None for 16 bits."""
        if scheme not in self._columns:
            listed = self.table.schemes
            alike = [number for number, other in enumerate(listed) if other.bits == scheme.bits]
            exact = listed.index(scheme) if scheme in listed else None
            column = exact if exact is not None else next(iter(alike), None)
            self._columns[scheme] = column if scheme.quantized else None
        return self._columns[scheme]
