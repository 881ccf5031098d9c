"""The grid of the layers of a model: a row for each block, a column for each kind of module, and a row for the rest.

Kinds that differ only in the number of an expert are one folded column, whose cells stand for all experts of a block;
it can be unfolded into one column for each expert. Depends on the tree of the model only, not on bits or pixels.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from app.shared.rule_words import counted
from core.model.towers import TITLES, Tower, tower_of
from core.model.tree import TOWER, ModelTree
from core.wording import human

OUTER_ROW = -1
"""The row of the modules outside the blocks."""
NOTHING = -1
"""The index in place of a layer where a block has no layer of a kind."""

_ORDER = (
    "q_a_proj", "q_b_proj", "q_proj", "kv_a_proj_with_mqa", "kv_b_proj", "k_proj", "v_proj", "qkv_proj", "o_proj",
    "gate", "shared_expert_gate", "gate_proj", "w1", "gate_up_proj", "up_proj", "w3", "down_proj", "w2",
)  # fmt: skip
"""The order of computation in a block; checkpoints are often sorted by name instead."""
_EXPERT = re.compile(r"(?<![^.])experts\.(\d+)(?=\.)")


@dataclass(frozen=True)
class OuterModule:
    """A module outside the blocks: its title, its layer or `NOTHING`, and a note that explains why it has no layer."""

    title: str
    layer: int
    note: str


@dataclass(frozen=True)
class CopiedPart:
    """A tower or projector of a multimodal model, or another part besides its language model.

    Attributes:
        title: kind and name.
        nbytes: size in the source.
        note: for a tooltip.
        layers: its linear layers, which can have bits; the rest of it is copied.
    """

    title: str
    nbytes: int
    note: str
    layers: tuple[int, ...] = ()


@dataclass(frozen=True)
class Band:
    """The columns of one module of all experts.

    Attributes:
        stem: the common pattern of their kinds, such as `mlp.experts.*.gate_proj`.
        title: the shortest name that differs from those of other bands.
        experts: the number of experts.
        columns: their columns; one column if folded.
        folded: whether all experts are one column.
    """

    stem: str
    title: str
    experts: int
    columns: range
    folded: bool


@dataclass(frozen=True)
class GridTemplate:
    """The layers of each kind by row, from which the grids of one tree are made, folded or not.

    Attributes:
        stems: the stem of each column with everything folded; the kind itself for a module that is not an expert.
        kinds: the kinds of each stem, in order of the expert's number.
        layers: for each kind the layer of each row, or `NOTHING`.
        cells: for each stem with more than one kind the layers of all its kinds, by row.
    """

    rows: int
    stems: tuple[str, ...]
    kinds: Mapping[str, tuple[str, ...]]
    layers: Mapping[str, Sequence[int]]
    cells: Mapping[str, Sequence[tuple[int, ...]]]
    outside: tuple[int, ...]
    outer: tuple[OuterModule, ...]
    count: int
    copied: tuple[CopiedPart, ...] = ()


@dataclass(frozen=True)
class LayerGrid:
    """The positions of all layers of a model.

    Attributes:
        kinds, titles: the names inside a block (with `*` if folded) and the short titles of the columns.
        rows: the number of blocks.
        cells: the layer at `row * len(kinds) + column`, the first if there are several, or `NOTHING`.
        places: row and column of each layer; the row is `OUTER_ROW` outside the blocks.
        outer: the modules outside the blocks.
        many: all layers of the cells with more than one layer, by the index of the cell.
        bands: the columns of experts.
        template: the template that the grid was made from.
        copied: the parts of the model besides its language model.
    """

    kinds: tuple[str, ...]
    titles: tuple[str, ...]
    rows: int
    cells: tuple[int, ...]
    places: tuple[tuple[int, int], ...]
    outer: tuple[OuterModule, ...]
    many: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    bands: tuple[Band, ...] = ()
    template: GridTemplate | None = None
    copied: tuple[CopiedPart, ...] = ()

    @property
    def columns(self) -> int:
        return len(self.kinds)

    def layer_at(self, row: int, column: int) -> int:
        """Return the layer of a cell, the first if there are several, or `NOTHING`."""
        if row == OUTER_ROW:
            return self.outer[column].layer if 0 <= column < len(self.outer) else NOTHING
        if 0 <= row < self.rows and 0 <= column < self.columns:
            return self.cells[row * self.columns + column]
        return NOTHING

    def layers_at(self, row: int, column: int) -> tuple[int, ...]:
        """Return all layers of a cell."""
        layer = self.layer_at(row, column)
        if layer == NOTHING:
            return ()
        return (layer,) if row == OUTER_ROW else self.many.get(row * self.columns + column, (layer,))

    def within(self, first: tuple[int, int], last: tuple[int, int]) -> list[int]:
        """Return the layers in the rectangle between two cells."""
        top, bottom = sorted((first[0], last[0]))
        left, right = sorted((first[1], last[1]))
        found: list[int] = []
        for row in range(top, bottom + 1):
            for column in range(left, right + 1):
                found += self.layers_at(row, column)
        return found

    def column(self, column: int) -> list[int]:
        """Return the layers of one kind."""
        return self.within((0, column), (self.rows - 1, column))

    def row(self, row: int) -> list[int]:
        """Return the layers of one block."""
        return self.within((row, 0), (row, self.columns - 1))

    def band_at(self, column: int) -> Band | None:
        """Return the band of a column; None if it is not a column of experts."""
        return next((band for band in self.bands if column in band.columns), None)

    def heads(self) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Return the first layer and all layers of each cell with more than one layer."""
        return ((layers[0], layers) for layers in self.many.values())

    def unfold(self, stem: str) -> LayerGrid:
        """Return the grid with a column for each expert of `stem`."""
        opened = {band.stem for band in self.bands if not band.folded}
        return self if self.template is None else _assembled(self.template, {*opened, stem})

    def fold(self, stem: str) -> LayerGrid:
        """Return the grid with one column for all experts of `stem`."""
        opened = {band.stem for band in self.bands if not band.folded}
        return self if self.template is None else _assembled(self.template, opened - {stem})

    def turned(self, stem: str) -> LayerGrid:
        """Return the grid with `stem` unfolded if it is folded, else folded."""
        folded = any(band.folded for band in self.bands if band.stem == stem)
        return self.unfold(stem) if folded else self.fold(stem)


def make_grid(tree: ModelTree) -> LayerGrid:
    """Return the grid of `tree` with all experts folded."""
    return _assembled(_laid_out(tree), ())


def short_names(kinds: Sequence[str]) -> tuple[str, ...]:
    """Return for each kind its shortest unique suffix of name parts, without `_proj` in the names of `_ORDER`.

    `_proj` is kept where a router, such as `mlp.gate`, would have the same name.
    """
    # The suffixes of each name, the longest first.
    known = frozenset(kinds)
    parts_of = [kind.split(".") if kind.removesuffix("_proj") in known else _parts(kind) for kind in kinds]
    endings = [[".".join(parts[first:]) for first in range(len(parts))] for parts in parts_of]
    used = Counter(ending for own in endings for ending in own)
    return tuple(next((ending for ending in reversed(own) if used[ending] == 1), own[0]) for own in endings)


def expert_of(kind: str) -> int:
    """Return the number of the expert of a kind; -1 for none."""
    found = _EXPERT.search(kind)
    return int(found[1]) if found else -1


def _laid_out(tree: ModelTree) -> GridTemplate:
    """Return the layers of `tree` by kind and row."""
    numbers = {linear.block for linear in tree.linears if linear.block >= 0}
    rows = max(tree.blocks, max(numbers, default=-1) + 1)
    layers: dict[str, list[int]] = {}
    outside, outer = [], _embedding(tree)
    of_towers: dict[str, list[int]] = {}
    for layer, linear in enumerate(tree.nameable):
        if linear.block == TOWER:
            tower = tower_of(tree.towers, linear.name)
            of_towers.setdefault(tower.prefix if tower is not None else "", []).append(layer)
            continue
        if linear.block < 0:
            outside.append(layer)
            tied = layer >= len(tree.linears)
            title = linear.kind.rpartition(".")[2]
            outer.append(OuterModule(f"{title} (tied)" if tied else title, layer, ""))
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
    return GridTemplate(
        rows, tuple(_ordered(by_stem)), by_stem, layers, cells, tuple(outside), tuple(outer), len(tree.nameable),
        tuple(_copied(tower, of_towers.get(tower.prefix, ())) for tower in tree.towers),
    )  # fmt: skip


def _assembled(template: GridTemplate, opened: Iterable[str]) -> LayerGrid:
    """Return the grid with these stems unfolded."""
    opened = frozenset(opened)
    kinds: list[str] = []
    spans: list[tuple[str, range, bool]] = []
    for stem in template.stems:
        own = template.kinds[stem]
        first, folded = len(kinds), len(own) > 1 and stem not in opened
        kinds += [stem] if folded else own
        if len(own) > 1:
            spans.append((stem, range(first, len(kinds)), folded))
    wide = len(kinds)
    cells = [NOTHING] * (template.rows * wide)
    places: list[tuple[int, int]] = [(OUTER_ROW, 0)] * template.count
    many: dict[int, tuple[int, ...]] = {}
    for column, kind in enumerate(kinds):
        if kind not in template.layers:
            for row, layers in enumerate(template.cells[kind]):
                if layers:
                    cells[row * wide + column] = layers[0]
                    many[row * wide + column] = layers
                place = (row, column)
                for layer in layers:
                    places[layer] = place
            continue
        cells[column::wide] = template.layers[kind]
        for row, layer in enumerate(template.layers[kind]):
            if layer != NOTHING:
                places[layer] = (row, column)
    first = len(template.outer) - len(template.outside)
    for number, layer in enumerate(template.outside):
        places[layer] = (OUTER_ROW, first + number)
    titles, bands = _titled(template, kinds, spans)
    return LayerGrid(
        tuple(kinds), titles, template.rows, tuple(cells), tuple(places), template.outer, many, bands, template,
        template.copied,
    )  # fmt: skip


def _titled(
    template: GridTemplate, kinds: Sequence[str], spans: Sequence[tuple[str, range, bool]]
) -> tuple[tuple[str, ...], tuple[Band, ...]]:
    """Return the titles of the columns and the bands; columns under a band are titled by the expert's number only."""
    under = {column for _, columns, _ in spans for column in columns}
    plain = [column for column in range(len(kinds)) if column not in under]
    stems = [stem for stem, _, _ in spans]
    # Unlike those of bands, the names of single columns differ from all others, as of a router from a `gate_proj`.
    names = dict(zip(plain, short_names([*(kinds[column] for column in plain), *stems]), strict=False))
    bands = []
    shorts = short_names(stems)
    for (stem, columns, folded), title in zip(spans, shorts, strict=True):
        bands.append(Band(stem, title, len(template.kinds[stem]), columns, folded))
        for column in columns:
            names[column] = title if folded else str(expert_of(kinds[column]))
    return tuple(names[column] for column in range(len(kinds))), tuple(bands)


def _parts(kind: str) -> list[str]:
    known = kind.rpartition(".")[2] in _ORDER
    return (kind.removesuffix("_proj") if known else kind).split(".")


def _ordered(kinds: Iterable[str]) -> list[str]:
    """Return the kinds by parent module.

    Those kinds of a parent that are in `_ORDER` have that order, and so have the parents whose kinds are all in it. The
    others keep their places.
    """
    groups: dict[str, list[str]] = {}
    for kind in kinds:
        groups.setdefault(kind.rpartition(".")[0], []).append(kind)
    places: dict[str, int] = {}
    for parent, own in groups.items():
        ranks = {kind: _ORDER.index(last) for kind in own if (last := kind.rpartition(".")[2]) in _ORDER}
        groups[parent] = _sorted_in_place(own, ranks)
        if len(ranks) == len(own):
            places[parent] = min(ranks.values())
    return [kind for parent in _sorted_in_place(list(groups), places) for kind in groups[parent]]


def _sorted_in_place(names: Sequence[str], ranks: Mapping[str, int]) -> list[str]:
    """Return `names` with those that have a rank sorted by it, without moving the others."""
    ranked = iter(sorted((name for name in names if name in ranks), key=ranks.__getitem__))
    return [next(ranked) if name in ranks else name for name in names]


def _copied(tower: Tower, layers: Sequence[int]) -> CopiedPart:
    size = human(tower.nbytes)
    about = "It is copied unchanged."
    if layers:
        about = f"It is copied, unless you give its {counted(len(layers))} 8 or 4 bits: click it to select them."
    return CopiedPart(
        f"{TITLES[tower.kind]}  {tower.prefix}",
        tower.nbytes,
        f"{tower.prefix}: {TITLES[tower.kind]}, {size} in {tower.tensors:,} tensors ({tower.dtype}).\n"
        f"{about} GGUF files do not contain it.",
        tuple(layers),
    )


def _embedding(tree: ModelTree) -> list[OuterModule]:
    if not tree.embedding:
        return []
    note = "The token embedding stays in 16 bits."
    if tree.tied:
        note = "The token embedding stays in 16 bits; lm_head is the same matrix, unless it has bits of its own."
    return [OuterModule("embed", NOTHING, note)]
