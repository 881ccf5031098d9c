"""The rows of the layer tree as arrays: blocks, their modules, and the experts of expert modules.

There is no object per row: a node is an index into a few lists, and the children of a node are consecutive.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, repeat

from app.pages.layers.layer_grid import NOTHING, LayerGrid


@dataclass(frozen=True)
class LayerNodes:
    """The nodes of a model, possibly filtered: the blocks first, then the layers outside them.

    Attributes:
        tops: number of nodes without a parent, which are the first ones.
        layers: the layer of each node; of an inner node the first layer below it.
        parents: the parent of each node, -1 for none.
        rows: the position of each node among the children of its parent.
        firsts, counts: the first child of each node and the number of its children.
        blocks: the block number of each node that is a block.
        stems: the common part of the kinds of the experts, for each node that is a module of experts.
        nodes: the node of each shown layer.
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
        """Return all layers below a node, or its own layer."""
        count = self.counts[node]
        if not count:
            return [self.layers[node]]
        children = range(self.firsts[node], self.firsts[node] + count)
        if node in self.stems:
            return self.layers[children.start : children.stop]
        return [layer for child in children for layer in self.below(child)]

    def above(self, node: int) -> Iterator[int]:
        """Return the ancestors of a node, the nearest first."""
        while (node := self.parents[node]) >= 0:
            yield node


def make_nodes(grid: LayerGrid, matches: Collection[int] | None = None) -> LayerNodes:
    """Return the nodes of a grid with all experts collapsed, restricted to `matches` if given.

    Modules are in the order of the columns of the map.
    """
    blocks, cells, folded = _filled_rows(grid, matches)
    outside = [one.layer for one in grid.outer if one.layer != NOTHING and (matches is None or one.layer in matches)]
    tops = len(blocks) + len(outside)
    layers, parents, rows = [*(own[0] for own in cells), *outside], [-1] * tops, list(range(tops))
    firsts, counts = [0] * tops, [0] * tops
    stems: dict[int, str] = {}
    # Vectorized, as a model may have tens of thousands of nodes.
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
    # The last node of the first expert is its own; the node of its module is the one before.
    nodes = dict(zip(layers[len(blocks) :], range(len(blocks), len(layers)), strict=True))
    return LayerNodes(tops, layers, parents, rows, firsts, counts, dict(enumerate(blocks)), stems, nodes)


def _add(
    layers: list[int],
    parents: list[int],
    rows: list[int],
    children: Sequence[Sequence[int]],
    above: Sequence[int],
) -> list[int]:
    """Append the children of the nodes `above` in order, and return the first child of each."""
    sizes = list(map(len, children))
    begins = list(accumulate(sizes, initial=len(layers)))
    layers += chain.from_iterable(children)
    parents += chain.from_iterable(map(repeat, above, sizes))
    rows += chain.from_iterable(map(range, sizes))
    return begins[:-1]


_Folded = tuple[int, tuple[int, int, tuple[int, ...]]]
"""A collapsed cell: the index of its block among the shown blocks, its place there, its column, and its layers."""


def _filled_rows(grid: LayerGrid, matches: Collection[int] | None) -> tuple[list[int], list[list[int]], list[_Folded]]:
    """Return the shown blocks, the first layer of each of their cells, and the collapsed cells."""
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
