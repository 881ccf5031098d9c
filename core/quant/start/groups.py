"""The start of the layers of a block, in as many passes as the Gram matrices need to fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from core.control import ShouldStop, check_stop
from core.estimation.memory_plan import STARTED_WEIGHTS
from core.quant.grid import new_grid
from core.quant.grid_groups import RowGroup
from core.quant.parameter_grid import GridRows, RowPlaces
from core.quant.start.feedback import ErrorFactors, error_factors
from core.quant.start.gram import GramMatrices
from core.quant.start.layer import start_layer
from core.quant.start.levels import Levels, joined_levels, row_chunks, row_errors
from core.schemes import LayerScheme


@dataclass(frozen=True)
class LayerErrors:
    """Squared errors of the outputs of a layer relative to the squares of the outputs, on the calibration text.

    Attributes:
        layer: its name inside the block.
        before, after: with plain rounding, and with the start.
    """

    layer: str
    before: float
    after: float


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
    should_stop: ShouldStop,
    on_layer: Callable[[LayerErrors], None],
) -> list[Levels]:
    """Return the levels of each group.

    Besides the Gram matrices, the error factors of one of them are in memory, which are as large.

    Args:
        originals: parameters in the dtype of the checkpoint, by name.
        working: the same in the dtype of the matrix products, with which the block runs.
        observe: runs the block on the calibration samples.
        scheme_of: returns the scheme of a group.
        min_zero: smallest zero point that the output format can store.
        budget: bytes of Gram matrices that may be in memory at the same time; one always may.
        on_layer: receives the errors of the rows of a layer in one parameter, as soon as their start is found.

    Raises:
        Cancelled: a stop was requested.
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
        keys = [grams.key(working[part.parameter], part.expert) for part in some]
        factors: ErrorFactors | None = None
        for number, part in enumerate(some):
            gram = _gram(grams, working[part.parameter], part)
            factors = factors or error_factors(gram)
            places = RowPlaces(tuple(originals[part.parameter].shape), [rows.place for rows in part.rows])
            weight, scheme = places.read(originals[part.parameter]), scheme_of(groups[part.group])
            levels, errors = zip(*_start_rows(weight, scheme, gram, min_zero, factors, should_stop), strict=True)
            found[part.group] += levels
            for layer in _layer_errors(part, torch.cat(errors, 1)):
                on_layer(layer)
            if number + 1 == len(some) or keys[number + 1] != keys[number]:
                factors = None
            if keys[number] not in keys[number + 1 :]:
                grams.release(keys[number])
            del gram
    return [joined_levels(levels) for levels in found]


def _gram(grams: GramMatrices, parameter: Tensor, part: _Part) -> Tensor:
    """Return the Gram matrix of the inputs of a part."""
    found = grams.of(parameter, part.expert)
    if found is None:  # an expert whose tokens the quantized model routes to others
        return torch.eye(part.rows[0].item.linear.in_features, device=parameter.device)
    return found


@torch.no_grad()
def _start_rows(
    weight: Tensor, scheme: LayerScheme, gram: Tensor, min_zero: int, factors: ErrorFactors, should_stop: ShouldStop
) -> Iterator[tuple[Levels, Tensor]]:
    """Yield the levels of the rows of a weight [out, in], some rows at a time.

    With them, the squared errors of their outputs with plain rounding, with the start, and with zeros, float64
    [3, rows]. Plain rounding of a block type has searched scales.
    """
    for rows in row_chunks(len(weight), weight.shape[1], STARTED_WEIGHTS):
        check_stop(should_stop)
        values = weight[rows].float().contiguous()
        start = start_layer(values, scheme, gram, min_zero, factors)
        # a second search of a block type would take as long as the rest of the start
        rounded = start.searched if scheme.type else row_errors(values, _plain(values, scheme, min_zero), gram)
        zeros = row_errors(values, lambda some, values=values: torch.zeros_like(values[some]), gram)  # type: ignore[misc]
        yield start.levels, torch.stack([rounded, start.errors, zeros])


def _plain(weight: Tensor, scheme: LayerScheme, min_zero: int) -> Callable[[slice], Tensor]:
    """Return a function that returns the weights of plain rounding in some rows."""

    def plain(rows: slice) -> Tensor:
        values = torch.empty_like(weight[rows])
        new_grid(weight[rows], scheme, min_zero=min_zero).quantize_into(values)
        return values

    return plain


def _layer_errors(part: _Part, errors: Tensor) -> Iterator[LayerErrors]:
    """Yield the errors of each layer in a part.

    Args:
        errors: squared errors of the outputs with plain rounding, with the start and with zeros, float64 [3, out].
    """
    first = part.rows[0].start
    for rows in part.rows:
        before, after, total = errors[:, rows.start - first : rows.stop - first].sum(1).tolist()
        name = rows.item.linear.kind
        yield LayerErrors(name, before / total, after / total) if total > 0 else LayerErrors(name, 0.0, 0.0)


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
