"""Where each layer stands on the map: blocks are rows, module kinds columns, what is outside the blocks apart.

Kinds that differ only in the number of an expert are one folded column, whose cells stand for all experts of a block;
it can be unfolded into one column for each. Made from the tree alone; knows neither bits nor pixels.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from core.model.tree import ModelTree

APART = -1
"""The row of what is outside the blocks."""
NOTHING = -1
"""Where a block has no layer of a kind."""

_ORDER = (
    "q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj",
    "gate", "shared_expert_gate", "gate_proj", "w1", "gate_up_proj", "up_proj", "w3", "down_proj", "w2",
)  # fmt: skip
"""The order in which a block computes; checkpoints are often sorted by name instead."""
_EXPERT = re.compile(r"(?<![^.])experts\.(\d+)(?=\.)")


@dataclass(frozen=True)
class Apart:
    """Something outside the blocks: its name for people, its layer or `NOTHING`, and why it has no layer."""

    title: str
    layer: int
    note: str


@dataclass(frozen=True)
class Band:
    """The columns of one module of all experts.

    Attributes:
        stem: what their kinds have in common, such as `mlp.experts.*.gate_proj`.
        title: the shortest name that tells it from other bands.
        experts: their number.
        columns: where they stand; one column where they are folded.
        folded: whether they are one column.
    """

    stem: str
    title: str
    experts: int
    columns: range
    folded: bool


@dataclass(frozen=True)
class Layout:
    """What all grids of one tree share, folded or not: the layers of each kind by row.

    Attributes:
        stems: of the columns with everything folded; for what is no expert's its kind.
        kinds: of each stem, by the number of the expert.
        layers: of each kind the layer of each row, or `NOTHING`.
        cells: of each stem with more than one kind the layers of each row, those of all its kinds.
    """

    rows: int
    stems: tuple[str, ...]
    kinds: Mapping[str, tuple[str, ...]]
    layers: Mapping[str, Sequence[int]]
    cells: Mapping[str, Sequence[tuple[int, ...]]]
    outside: tuple[int, ...]
    apart: tuple[Apart, ...]
    count: int


@dataclass(frozen=True)
class LayerGrid:
    """The places of all layers of a model.

    Attributes:
        kinds, titles: of the columns: names inside a block (a folded one's with `*`), and short ones.
        rows: number of blocks.
        cells: the layer at `row * len(kinds) + column`, the first where it is several, or `NOTHING`.
        places: row and column of each layer; the row is `APART` outside the blocks.
        apart: what is outside the blocks.
        many: all layers of the cells that stand for more than one, by the number of the cell.
        bands: the columns of experts.
        layout: what it was made from.
    """

    kinds: tuple[str, ...]
    titles: tuple[str, ...]
    rows: int
    cells: tuple[int, ...]
    places: tuple[tuple[int, int], ...]
    apart: tuple[Apart, ...]
    many: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    bands: tuple[Band, ...] = ()
    layout: Layout | None = None

    @property
    def columns(self) -> int:
        return len(self.kinds)

    def layer_at(self, row: int, column: int) -> int:
        """The layer in a cell, the first where it is several, or `NOTHING`."""
        if row == APART:
            return self.apart[column].layer if 0 <= column < len(self.apart) else NOTHING
        if 0 <= row < self.rows and 0 <= column < self.columns:
            return self.cells[row * self.columns + column]
        return NOTHING

    def layers_at(self, row: int, column: int) -> tuple[int, ...]:
        """All layers in a cell."""
        layer = self.layer_at(row, column)
        if layer == NOTHING:
            return ()
        return (layer,) if row == APART else self.many.get(row * self.columns + column, (layer,))

    def within(self, first: tuple[int, int], last: tuple[int, int]) -> list[int]:
        """The layers in the rectangle between two cells; of the row apart its neighbours between the two."""
        top, bottom = sorted((first[0], last[0]))
        left, right = sorted((first[1], last[1]))
        found: list[int] = []
        for row in range(top, bottom + 1):
            for column in range(left, right + 1):
                found += self.layers_at(row, column)
        return found

    def column(self, column: int) -> list[int]:
        """The layers of one kind."""
        return self.within((0, column), (self.rows - 1, column))

    def row(self, row: int) -> list[int]:
        """The layers of one block."""
        return self.within((row, 0), (row, self.columns - 1))

    def band_at(self, column: int) -> Band | None:
        """The band that a column belongs to; None where it is no expert's."""
        return next((band for band in self.bands if column in band.columns), None)

    def heads(self) -> Iterator[tuple[int, tuple[int, ...]]]:
        """The first layer and all layers of each cell that stands for more than one."""
        return ((layers[0], layers) for layers in self.many.values())

    def unfold(self, stem: str) -> LayerGrid:
        """This grid with a column for each expert of `stem`."""
        opened = {band.stem for band in self.bands if not band.folded}
        return self if self.layout is None else _assembled(self.layout, {*opened, stem})

    def fold(self, stem: str) -> LayerGrid:
        """This grid with one column for all experts of `stem`."""
        opened = {band.stem for band in self.bands if not band.folded}
        return self if self.layout is None else _assembled(self.layout, opened - {stem})

    def turned(self, stem: str) -> LayerGrid:
        """`unfold` where `stem` is folded, else `fold`."""
        folded = any(band.folded for band in self.bands if band.stem == stem)
        return self.unfold(stem) if folded else self.fold(stem)


def make_grid(tree: ModelTree) -> LayerGrid:
    """The grid of `tree`, all experts folded."""
    return _assembled(_laid_out(tree), ())


def short_names(kinds: Sequence[str]) -> tuple[str, ...]:
    """For each kind as few of its last parts as tell it from the others, without the `_proj` of the known ones."""
    # The name and all that is left of it when its first parts are taken off, the longest first.
    endings = [[".".join(parts[first:]) for first in range(len(parts))] for parts in map(_parts, kinds)]
    used = Counter(ending for own in endings for ending in own)
    return tuple(next((ending for ending in reversed(own) if used[ending] == 1), own[0]) for own in endings)


def expert_of(kind: str) -> int:
    """The number of the expert that a kind belongs to; -1 for none."""
    found = _EXPERT.search(kind)
    return int(found[1]) if found else -1


def _laid_out(tree: ModelTree) -> Layout:
    """The layers of `tree` by kind and row."""
    numbers = {linear.block for linear in tree.linears if linear.block >= 0}
    rows = max(tree.blocks, max(numbers, default=-1) + 1)
    layers: dict[str, list[int]] = {}
    outside, apart = [], _embedding(tree)
    for layer, linear in enumerate(tree.nameable):
        if linear.block < 0:
            outside.append(layer)
            tied = layer >= len(tree.linears)
            title = linear.kind.rpartition(".")[2]
            apart.append(Apart(f"{title} (tied)" if tied else title, layer, ""))
            continue
        try:
            layers[linear.kind][linear.block] = layer
        except KeyError:
            layers[linear.kind] = [NOTHING] * rows
            layers[linear.kind][linear.block] = layer
    kinds: dict[str, list[str]] = {}
    for kind in layers:
        kinds.setdefault(_EXPERT.sub("experts.*", kind), []).append(kind)
    single = {stem: own[0] if len(own) == 1 else stem for stem, own in kinds.items()}
    by_stem = {single[stem]: tuple(sorted(own, key=expert_of)) for stem, own in kinds.items()}
    cells = {
        stem: [
            row if NOTHING not in row else tuple(layer for layer in row if layer != NOTHING)
            for row in zip(*map(layers.__getitem__, own), strict=True)
        ]
        for stem, own in by_stem.items()
        if len(own) > 1
    }
    return Layout(
        rows, tuple(_ordered(by_stem)), by_stem, layers, cells, tuple(outside), tuple(apart), len(tree.nameable)
    )


def _assembled(layout: Layout, opened: Iterable[str]) -> LayerGrid:
    """The grid with these stems unfolded."""
    opened = frozenset(opened)
    kinds: list[str] = []
    spans: list[tuple[str, range, bool]] = []
    for stem in layout.stems:
        own = layout.kinds[stem]
        first, folded = len(kinds), len(own) > 1 and stem not in opened
        kinds += [stem] if folded else own
        if len(own) > 1:
            spans.append((stem, range(first, len(kinds)), folded))
    wide = len(kinds)
    cells = [NOTHING] * (layout.rows * wide)
    places: list[tuple[int, int]] = [(APART, 0)] * layout.count
    many: dict[int, tuple[int, ...]] = {}
    for column, kind in enumerate(kinds):
        if kind not in layout.layers:
            for row, layers in enumerate(layout.cells[kind]):
                if layers:
                    cells[row * wide + column] = layers[0]
                    many[row * wide + column] = layers
                place = (row, column)
                for layer in layers:
                    places[layer] = place
            continue
        cells[column::wide] = layout.layers[kind]
        for row, layer in enumerate(layout.layers[kind]):
            if layer != NOTHING:
                places[layer] = (row, column)
    first = len(layout.apart) - len(layout.outside)
    for number, layer in enumerate(layout.outside):
        places[layer] = (APART, first + number)
    titles, bands = _titled(layout, kinds, spans)
    return LayerGrid(tuple(kinds), titles, layout.rows, tuple(cells), tuple(places), layout.apart, many, bands, layout)


def _titled(
    layout: Layout, kinds: Sequence[str], spans: Sequence[tuple[str, range, bool]]
) -> tuple[tuple[str, ...], tuple[Band, ...]]:
    """Titles of the columns, and the bands over those of experts: what stands under one needs no more of its name."""
    under = {column for _, columns, _ in spans for column in columns}
    plain = [column for column in range(len(kinds)) if column not in under]
    names = dict(zip(plain, short_names([kinds[column] for column in plain]), strict=True))
    bands = []
    shorts = short_names([stem for stem, _, _ in spans])
    for (stem, columns, folded), title in zip(spans, shorts, strict=True):
        bands.append(Band(stem, title, len(layout.kinds[stem]), columns, folded))
        for column in columns:
            names[column] = title if folded else str(expert_of(kinds[column]))
    return tuple(names[column] for column in range(len(kinds))), tuple(bands)


def _parts(kind: str) -> list[str]:
    known = kind.rpartition(".")[2] in _ORDER
    return (kind.removesuffix("_proj") if known else kind).split(".")


def _ordered(kinds: Iterable[str]) -> list[str]:
    """The kinds as a block computes them where all are known, else as the checkpoint lists them.

    Those of one module stay together, for a block may have several of a sort: experts, and one that they share.
    """
    listed = list(kinds)
    split = [kind.rpartition(".") for kind in listed]
    if not {last for _, _, last in split} <= set(_ORDER):
        return listed
    first: dict[str, int] = {}
    for parent, _, last in split:
        first[parent] = min(first.get(parent, len(_ORDER)), _ORDER.index(last))
    parents = sorted(first, key=first.__getitem__)
    return sorted(
        listed, key=lambda kind: (parents.index(kind.rpartition(".")[0]), _ORDER.index(kind.rpartition(".")[2]))
    )


def _embedding(tree: ModelTree) -> list[Apart]:
    if not tree.embedding:
        return []
    note = "The token embedding stays in 16 bits."
    if tree.tied:
        note = "The token embedding stays in 16 bits; lm_head is the same matrix, unless it is given bits of its own."
    return [Apart("embed", NOTHING, note)]
