"""The texts and values of the cells of the map: a layer, or all experts of a block collapsed into one cell.

A cell is identified by its first layer, so that one number per layer is enough for any coloring.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from app.pages.layers.budget.loss_increase import LayerSensitivity
from app.pages.layers.layer_grid import NOTHING, OUTER_ROW, CopiedPart, LayerGrid
from app.pages.layers.layer_sheet import LayerSheet, marked, summarize
from core.formats.engines import EngineIssue
from core.schemes import UNTOUCHED
from core.wording import figure, human, short_figure

_TOLD = 3
"""Number of reasons that a tooltip lists individually."""


@dataclass(frozen=True)
class MapCells:
    """The cells of `grid` with the values of `sheet`. `layer` is always the first layer of a cell."""

    grid: LayerGrid
    sheet: LayerSheet

    @cached_property
    def folded(self) -> dict[int, tuple[int, ...]]:
        """All layers of the cells that contain more than one."""
        return dict(self.grid.heads())

    @cached_property
    def shown(self) -> list[int]:
        """The first layer of every cell, including those outside the blocks."""
        return [layer for layer in (*self.grid.cells, *(one.layer for one in self.grid.outer)) if layer != NOTHING]

    @cached_property
    def mixes(self) -> dict[int, list[tuple[int, int]]]:
        """Bits in ascending order with their number of layers, for collapsed cells with different bits."""
        bits = self.sheet.bits.__getitem__
        found = {layer: Counter(map(bits, layers)) for layer, layers in self.folded.items()}
        return {layer: sorted(counts.items()) for layer, counts in found.items() if len(counts) > 1}

    def part_title(self, part: CopiedPart) -> str:
        """Return the title of a part besides the language model, with what happens to it."""
        title = f"{part.title}  {human(part.nbytes)}"
        bits = sorted({self.sheet.bits[layer] for layer in part.layers} - {UNTOUCHED})
        if not bits:
            return f"{title}, copied"
        summary = summarize(self.sheet, part.layers)
        if UNTOUCHED in summary.bits:
            bits.append(UNTOUCHED)
        after = human(part.nbytes - summary.before + summary.after)
        return f"{title} \N{RIGHTWARDS ARROW} {after}, {' and '.join(map(str, bits))} bits"

    def bits(self, layer: int) -> int:
        """Return the most frequent number of bits of a cell."""
        if layer not in self.mixes:
            return self.sheet.bits[layer]
        return max(self.mixes[layer], key=lambda pair: pair[1])[0]

    def values(self, coloring: str) -> list[float]:
        """Return one number per layer, NaN if unknown; at the first layer of a collapsed cell the sum over the cell."""
        values = self.sheet.values(coloring)
        if coloring == "bits" or not self.folded:
            return values
        values = list(values)
        if coloring != "loss":  # the loss of the block, the same for all its layers
            for layer, layers in self.folded.items():
                known = [value for value in map(values.__getitem__, layers) if value == value]
                values[layer] = math.fsum(known) if known else math.nan
        return values

    def text(self, layer: int, coloring: str, value: float) -> str:
        """Return the text in a cell; `value` is its number in the current coloring."""
        if coloring == "sensitivity":
            return short_figure(value)
        if coloring == "size":
            return figure(value / self.sheet.unit[0])
        if coloring == "loss":
            return figure(value)
        if layer not in self.mixes:
            return str(self.sheet.bits[layer])
        mix = self.mixes[layer]
        return f"{mix[0][0]}\N{EN DASH}{mix[-1][0]}"

    @cached_property
    def fallen(self) -> frozenset[int]:
        """The cells with a layer whose scheme was replaced by a fallback."""
        plans = self.sheet.plans
        odd = {number for number, case in enumerate(plans.cases) if case.fallback}
        if not odd:
            return frozenset()
        return self._cells_of(layer for layer, kind in enumerate(plans.kinds) if kind in odd)

    @cached_property
    def marks(self) -> dict[int, EngineIssue]:
        """The most severe mark of each cell."""
        found: dict[int, EngineIssue] = {}
        for layer, mark in self.sheet.marks.items():
            if layer >= len(self.grid.places):
                continue
            head = self.grid.layer_at(*self.grid.places[layer])
            if head not in found or (mark.cannot and not found[head].cannot):
                found[head] = mark
        return found

    def lit(self, matches: Collection[int]) -> frozenset[int]:
        """Return the cells with a layer among `matches`."""
        return self._cells_of(layer for layer in matches if layer < len(self.grid.places))

    def describe(self, layer: int) -> str:
        """Return the lines of the tooltip of a cell."""
        layers = self.folded.get(layer)
        if layers is None:
            return self.sheet.describe(layer)
        found = summarize(self.sheet, layers)
        lines = [
            f"{self._place(layer)}: {len(layers):,} experts",
            f"{self.sheet.shape(layer)}, {self.sheet.linear(layer).dtype} each",
            _counted({f"{bits} bits": count for bits, count in sorted(found.bits.items())}, len(layers)),
            _counted(found.whys, len(layers)),
            _counted(found.fallbacks, len(layers)),
            f"{human(found.before)} \N{RIGHTWARDS ARROW} {human(found.after)}",
            self._loss_increase(layers),
        ]
        loss = self.sheet.losses.get(self.sheet.linear(layer).block)
        if loss is not None:
            lines.append(f"Loss of block {self.sheet.linear(layer).block} after the last run: {figure(loss)}")
        if layer in self.marks:
            lines.append(self._marks(layers))
        return "\n".join(line for line in lines if line)

    def spoken(self, layer: int) -> str:
        """Return the description of a cell for screen readers."""
        layers = self.folded.get(layer)
        if layers is None:
            return self.sheet.spoken(layer)
        counts = Counter(map(self.sheet.bits.__getitem__, layers))
        bits = _counted({f"{bits} bits": count for bits, count in sorted(counts.items())}, len(layers))
        words = [self._place(layer), f"{len(layers):,} experts collapsed", bits]
        if layer in self.marks:
            words.append(self._marks(layers))
        return ", ".join(words)

    def _place(self, layer: int) -> str:
        row, column = self.grid.places[layer]
        return f"block {row}, {self.grid.kinds[column]}" if row != OUTER_ROW else self.sheet.linear(layer).name

    def _loss_increase(self, layers: Collection[int]) -> str:
        known: LayerSensitivity | None = self.sheet.loss_increase
        if known is None:
            return ""
        now = [value for layer in layers if (value := self.sheet.loss_increase_now(layer)) is not None]
        most = [value for layer in layers if (value := known.sensitivity[layer]) == value]
        if not now or not most:
            return ""
        fewest = min(scheme.bits for scheme in known.table.schemes)
        return (
            f"Predicted loss increase: {figure(math.fsum(now))} now, {figure(math.fsum(most))} "
            f"with all at {fewest} bits; "
            f"one expert {figure(min(most))} to {figure(max(most))}"
        )

    def _marks(self, layers: Collection[int]) -> str:
        found = Counter(marked(self.sheet.marks[layer]) for layer in layers if layer in self.sheet.marks)
        return _counted(found, len(layers))

    def _cells_of(self, layers: Iterable[int]) -> frozenset[int]:
        cells, places, columns = self.grid.cells, self.grid.places, self.grid.columns
        found = set()
        for layer in layers:
            row, column = places[layer]
            found.add(layer if row == OUTER_ROW else cells[row * columns + column])
        return frozenset(found)


def _counted(counts: Mapping[str, int], total: int) -> str:
    """Return the most frequent texts, each with its number of layers unless it applies to all of them."""
    listed = list(counts.items())
    if len(listed) > _TOLD:
        listed = sorted(listed, key=lambda item: -item[1])[:_TOLD]
    parts = [text if count == total else f"{text} ({count:,})" for text, count in listed]
    rest = len(counts) - len(listed)
    return "; ".join([*parts, f"and {rest} more"] if rest else parts)
