"""The rows of the tree of layers, as numbers: blocks, in them modules, and in those of experts the experts.

No object a row: a node is its position in a few lists, the children of a node follow each other. Knows no Qt.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, repeat

from app.pages.layers.layer_grid import NOTHING, LayerGrid


@dataclass(frozen=True)
class LayerNodes:
    """What there is to show of a model, perhaps filtered. Blocks come first, then what is outside them.

    Attributes:
        tops: number of nodes without a parent; these are the first ones.
        layers: of each node; of one that has nodes below it the first of theirs.
        parents: of each node, -1 for none.
        rows: of each node its place among the children of its parent.
        firsts, counts: of each node the first of its children and their number.
        blocks: of the nodes that are blocks their numbers.
        stems: of the nodes that are a module of experts what the experts' kinds have in common.
        nodes: of each layer that is shown.
    """

    tops: int
    layers: list[int]
    parents: list[int]
    rows: list[int]
    firsts: list[int]
    counts: list[int]
    blocks: dict[int, int]
    stems: dict[int, str]
    nodes: dict[int, int]

    def __len__(self) -> int:
        return len(self.layers)

    def below(self, node: int) -> list[int]:
        """All layers under a node, or its own."""
        count = self.counts[node]
        if not count:
            return [self.layers[node]]
        children = range(self.firsts[node], self.firsts[node] + count)
        if node in self.stems:
            return self.layers[children.start : children.stop]
        return [layer for child in children for layer in self.below(child)]

    def above(self, node: int) -> Iterator[int]:
        """The parents of a node, the nearest first."""
        while (node := self.parents[node]) >= 0:
            yield node


def make_nodes(grid: LayerGrid, matches: Collection[int] | None = None) -> LayerNodes:
    """The nodes of a grid with all experts folded; of `matches` alone, if there are some.

    Modules stand in the order of the map's columns.
    """
    blocks, cells, folded = _filled_rows(grid, matches)
    outside = [one.layer for one in grid.apart if one.layer != NOTHING and (matches is None or one.layer in matches)]
    tops = len(blocks) + len(outside)
    layers, parents, rows = [*(own[0] for own in cells), *outside], [-1] * tops, list(range(tops))
    firsts, counts = [0] * tops, [0] * tops
    stems: dict[int, str] = {}
    # All at once, not node by node: a model may have tens of thousands.
    firsts[: len(cells)] = _add(layers, parents, rows, cells, range(len(cells)))
    counts[: len(cells)] = map(len, cells)
    firsts += [0] * (len(layers) - tops)
    counts += [0] * (len(layers) - tops)
    modules: dict[int, tuple[int, ...]] = {}
    for number, (place, column, own) in folded:
        stems[firsts[number] + place] = grid.kinds[column]
        modules[firsts[number] + place] = own
    found = _add(layers, parents, rows, list(modules.values()), list(modules))
    for (module, own), first in zip(modules.items(), found, strict=True):
        firsts[module], counts[module] = first, len(own)
    firsts += [0] * (len(layers) - len(firsts))
    counts += [0] * (len(layers) - len(counts))
    # Of the first of several experts the last node is its own, and that of their module is before it.
    nodes = dict(zip(layers[len(blocks) :], range(len(blocks), len(layers)), strict=True))
    return LayerNodes(tops, layers, parents, rows, firsts, counts, dict(enumerate(blocks)), stems, nodes)


def _add(
    layers: list[int],
    parents: list[int],
    rows: list[int],
    children: Sequence[Sequence[int]],
    above: Sequence[int],
) -> list[int]:
    """Add the children of the nodes `above`, those of each after those of the one before; where those of each begin."""
    sizes = list(map(len, children))
    begins = list(accumulate(sizes, initial=len(layers)))
    layers += chain.from_iterable(children)
    parents += chain.from_iterable(map(repeat, above, sizes))
    rows += chain.from_iterable(map(range, sizes))
    return begins[:-1]


_Folded = tuple[int, tuple[int, int, tuple[int, ...]]]
"""A folded cell: which of the blocks that are shown it is in; its place there, its column, and all its layers."""


def _filled_rows(grid: LayerGrid, matches: Collection[int] | None) -> tuple[list[int], list[list[int]], list[_Folded]]:
    """The blocks with something to show, the first layer of each of their cells, and what there is of folded ones."""
    wide, many = grid.columns, grid.many
    blocks: list[int] = []
    rows: list[list[int]] = []
    folded: list[_Folded] = []
    for row in range(grid.rows):
        start = row * wide
        cells = grid.cells[start : start + wide]
        shown: list[int] = []
        if many:
            for column, layer in enumerate(cells):
                layers = many.get(start + column, (layer,) if layer != NOTHING else ())
                if matches is not None:
                    layers = tuple(layer for layer in layers if layer in matches)
                if layers and start + column in many:
                    folded.append((len(rows), (len(shown), column, layers)))
                shown += layers[:1]
        elif matches is not None:
            shown = [layer for layer in cells if layer in matches]
        else:
            shown = [layer for layer in cells if layer != NOTHING] if NOTHING in cells else list(cells)
        if shown:
            blocks.append(row)
            rows.append(shown)
    return blocks, rows, folded
