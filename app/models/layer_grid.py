"""Where each layer stands on the map: blocks are rows, module kinds columns, what is outside the blocks apart.

Made from the tree alone; knows neither bits nor pixels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from core.model.tree import ModelTree

APART = -1
"""The row of what is outside the blocks."""
NOTHING = -1
"""Where a block has no layer of a kind."""

_ORDER = ("q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj", "gate_proj", "gate_up_proj", "up_proj", "down_proj")
"""The order in which a block computes; checkpoints are often sorted by name instead."""


@dataclass(frozen=True)
class Apart:
    """Something outside the blocks: its name for people, its layer or `NOTHING`, and why it has no layer."""

    title: str
    layer: int
    note: str


@dataclass(frozen=True)
class LayerGrid:
    """The places of all layers of a model.

    Attributes:
        kinds, titles: of the columns: names inside a block, and the shortest that tell them apart.
        rows: number of blocks.
        cells: the layer at `row * len(kinds) + column`, or `NOTHING`.
        places: row and column of each layer; the row is `APART` outside the blocks.
        apart: what is outside the blocks.
    """

    kinds: tuple[str, ...]
    titles: tuple[str, ...]
    rows: int
    cells: tuple[int, ...]
    places: tuple[tuple[int, int], ...]
    apart: tuple[Apart, ...]

    @property
    def columns(self) -> int:
        return len(self.kinds)

    def layer_at(self, row: int, column: int) -> int:
        """The layer in a cell, or `NOTHING`."""
        if row == APART:
            return self.apart[column].layer if 0 <= column < len(self.apart) else NOTHING
        if 0 <= row < self.rows and 0 <= column < self.columns:
            return self.cells[row * self.columns + column]
        return NOTHING

    def within(self, first: tuple[int, int], last: tuple[int, int]) -> list[int]:
        """The layers in the rectangle between two cells; of the row apart its neighbours between the two."""
        top, bottom = sorted((first[0], last[0]))
        left, right = sorted((first[1], last[1]))
        found = [self.layer_at(row, column) for row in range(top, bottom + 1) for column in range(left, right + 1)]
        return [layer for layer in found if layer != NOTHING]

    def column(self, column: int) -> list[int]:
        """The layers of one kind."""
        return [layer for layer in self.cells[column :: self.columns] if layer != NOTHING]

    def row(self, row: int) -> list[int]:
        """The layers of one block."""
        return [layer for layer in self.cells[row * self.columns : (row + 1) * self.columns] if layer != NOTHING]


def make_grid(tree: ModelTree) -> LayerGrid:
    """The grid of `tree`."""
    kinds = _ordered(dict.fromkeys(linear.kind for linear in tree.linears if linear.block >= 0))
    column_of = {kind: column for column, kind in enumerate(kinds)}
    numbers = sorted({linear.block for linear in tree.linears if linear.block >= 0})
    rows = max(tree.blocks, numbers[-1] + 1 if numbers else 0)
    cells = [NOTHING] * (rows * len(kinds))
    places = []
    apart = _embedding(tree)
    for layer, linear in enumerate(tree.linears):
        if linear.block < 0:
            places.append((APART, len(apart)))
            apart.append(Apart(linear.kind.rpartition(".")[2], layer, ""))
            continue
        place = (linear.block, column_of[linear.kind])
        cells[place[0] * len(kinds) + place[1]] = layer
        places.append(place)
    return LayerGrid(tuple(kinds), short_names(kinds), rows, tuple(cells), tuple(places), tuple(apart))


def short_names(kinds: Sequence[str]) -> tuple[str, ...]:
    """For each kind as few of its last parts as tell it from the others, without the `_proj` of the known ones."""
    # The name and all that is left of it when its first parts are taken off, the longest first.
    endings = [[".".join(parts[first:]) for first in range(len(parts))] for parts in map(_parts, kinds)]
    used = Counter(ending for own in endings for ending in own)
    return tuple(next((ending for ending in reversed(own) if used[ending] == 1), own[0]) for own in endings)


def _parts(kind: str) -> list[str]:
    known = kind.rpartition(".")[2] in _ORDER
    return (kind.removesuffix("_proj") if known else kind).split(".")


def _ordered(kinds: Iterable[str]) -> list[str]:
    """The kinds as a block computes them where all are known, else as the checkpoint lists them."""
    listed = list(kinds)
    last = [kind.rpartition(".")[2] for kind in listed]
    if len(set(last)) < len(last) or not set(last) <= set(_ORDER):
        return listed
    return sorted(listed, key=lambda kind: _ORDER.index(kind.rpartition(".")[2]))


def _embedding(tree: ModelTree) -> list[Apart]:
    if not tree.embedding:
        return []
    note = "The token embedding stays in 16 bits."
    if tree.tied:
        note = "The token embedding stays in 16 bits; lm_head is the same matrix."
    return [Apart("embed + lm_head" if tree.tied else "embed", NOTHING, note)]
