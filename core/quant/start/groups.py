"""The start of the layers of a block, in as many passes as the Gram matrices need to fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from torch import Tensor

from core.quant.grid_groups import RowGroup
from core.quant.parameter_grid import GridRows, RowPlaces
from core.quant.start.gram import GramMatrices
from core.quant.start.layer import start_layer
from core.quant.start.levels import Levels, joined_levels
from core.schemes import LayerScheme


@dataclass(frozen=True)
class _Part:
    """Rows of a group (its number) with the same inputs: those of one layer, or of one expert."""

    group: int
    parameter: str
    expert: int
    rows: tuple[GridRows, ...]


def start_groups(
    groups: Sequence[RowGroup],
    originals: Mapping[str, Tensor],
    working: Mapping[str, Tensor],
    observe: Callable[[], None],
    scheme_of: Callable[[RowGroup], LayerScheme],
    min_zero: int,
    budget: int,
) -> list[Levels]:
    """Return the levels of each group.

    Args:
        originals: parameters in the dtype of the checkpoint, by name.
        working: the same in the dtype of the matrix products, with which the block runs.
        observe: runs the block on the calibration samples.
        scheme_of: returns the scheme of a group.
        min_zero: smallest zero point that the output format can store.
        budget: bytes of Gram matrices that may be in memory at the same time; one always may.
    """
    found: list[list[Levels]] = [[] for _ in groups]
    parts = [
        _Part(number, group.parameter, expert, tuple(rows))
        for number, group in enumerate(groups)
        for expert, rows in groupby(group.rows, key=lambda part: part.place.expert or 0)
    ]
    for some in _passes(parts, budget):
        wanted: dict[str, set[int]] = {}
        for part in some:
            wanted.setdefault(part.parameter, set()).add(part.expert)
        grams = GramMatrices(
            {working[part.parameter]: groups[part.group].experts(working[part.parameter]) for part in some},
            {working[name]: numbers for name, numbers in wanted.items()},
        )
        with grams.recording():
            observe()
        for part in some:
            original = originals[part.parameter]
            places = RowPlaces(tuple(original.shape), [rows.place for rows in part.rows])
            gram = grams.of(working[part.parameter], part.expert)
            weight = places.read(original).float().contiguous()
            found[part.group].append(start_layer(weight, scheme_of(groups[part.group]), gram, min_zero))
    return [joined_levels(levels) for levels in found]


def _passes(parts: Sequence[_Part], budget: int) -> Iterator[list[_Part]]:
    """Yield the parts in order, divided so that the Gram matrices of each list fit into the budget."""
    some: list[_Part] = []
    used, counted = 0, set[tuple[str, int]]()
    for part in parts:
        key = (part.parameter, part.expert)
        size = 0 if key in counted else 4 * part.rows[0].item.linear.in_features ** 2
        if some and used + size > budget:
            yield some
            some, used, counted = [], 0, set()
        some.append(part)
        used += size
        counted.add(key)
    if some:
        yield some
