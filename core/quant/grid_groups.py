"""Division of the linear layers of a block into grids: by parameter, scheme, and whether they are tuned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from core.formats.gguf.mixes import tuned_as
from core.formats.grids import named_mix
from core.model.slices import ParameterSlice
from core.model.tree import LayerPlan
from core.quant.grid import new_grid
from core.quant.input_statistics import InputStatistics
from core.quant.latent_grid import LEARNED_BITS, latent_grid
from core.quant.level_grid import level_grid
from core.quant.parameter_grid import GridRows, ParameterGrid, RowPlaces
from core.quant.rtn import search_scale, searchable
from core.quant.start.levels import Levels, row_chunks
from core.recipes import Recipe
from core.report.experts import MixtureTokens
from core.schemes import LayerScheme
from core.spec import JobSpec

FEW_TOKENS = 32
"""An expert with fewer tokens of calibration text is not tuned: the gradients of so few tokens are mostly noise. Its
scales are searched, weighted by the mean inputs of all experts if it has no tokens at all."""


@dataclass(frozen=True)
class RowGroup:
    """Rows of one parameter that become one grid.

    Attributes:
        parameter: name in the model.
        rows: the linear layers.
        tuned: whether the rounding is tuned.
    """

    parameter: str
    rows: tuple[GridRows, ...]
    tuned: bool = True

    def experts(self, parameter: Tensor) -> int:
        """Return the number of experts of the parameter, also those that no row belongs to; 1 for a linear layer."""
        return self.rows[0].place.experts(parameter.shape)


def group_rows(places: list[tuple[LayerPlan, list[ParameterSlice]]]) -> list[RowGroup]:
    """Return one group for the rows of each parameter with the same scheme and storage order."""
    groups: dict[tuple[str, LayerScheme, bool], list[tuple[LayerPlan, ParameterSlice]]] = {}
    for item, found in places:
        for place in found:
            groups.setdefault((place.parameter, item.scheme, place.transposed), []).append((item, place))
    made = []
    for (parameter, scheme, _), members in groups.items():
        # sorted as in the parameter, so that a whole parameter is one slice of rows
        members = sorted(members, key=lambda member: (member[1].expert or 0, _first(member[1])))
        single = bool(scheme.type)  # the scales of block types are searched one layer at a time
        parts = [[member] for member in members] if single else [members]
        made += [RowGroup(parameter, _numbered(chosen)) for chosen in parts]
    return made


def _first(place: ParameterSlice) -> int:
    return int(place.rows.start or 0) if isinstance(place.rows, slice) else int(place.rows[0])


def _numbered(members: list[tuple[LayerPlan, ParameterSlice]]) -> tuple[GridRows, ...]:
    rows, start = [], 0
    for item, place in members:
        height = item.linear.out_features
        count = len(range(height)[place.of]) if isinstance(place.of, slice) else len(place.of)
        rows.append(GridRows(item, place, start, start + count))
        start += count
    return tuple(rows)


def divided(
    groups: list[RowGroup], recorded: InputStatistics, parameters: Mapping[str, Tensor], spec: JobSpec
) -> Iterator[RowGroup]:
    """Yield the groups, divided into experts with enough tokens to be tuned and others."""
    for group in groups:
        if not _learns(spec.recipe) or not _is_expert(group):
            yield group
            continue
        counts = recorded.counts(parameters[group.parameter])
        for tuned in (True, False):
            members = [(part.item, part.place) for part in group.rows if (counts[_expert(part)] >= FEW_TOKENS) == tuned]
            if members:
                yield RowGroup(group.parameter, _numbered(members), tuned)


def recorded_parameters(groups: list[RowGroup], parameters: Mapping[str, Tensor], spec: JobSpec) -> dict[str, int]:
    """Return the parameters whose inputs are recorded, with their numbers of experts: those of mixtures, and those
    whose search for scales is weighted by the inputs."""
    return {
        group.parameter: group.experts(parameters[group.parameter])
        for group in groups
        if spec.save_imatrix
        or _weighed(spec.recipe, grid_scheme(spec, group.rows[0].item))
        or (_learns(spec.recipe) and _is_expert(group))
    }


def _is_expert(group: RowGroup) -> bool:
    return ".experts." in group.rows[0].item.linear.name


def _expert(part: GridRows) -> int:
    return part.place.expert or 0


def make_grid(
    group: RowGroup,
    original: Tensor,
    parameter: nn.Parameter,
    recorded: InputStatistics,
    started: Levels | None,
    spec: JobSpec,
    min_zero: int,
    imported: Mapping[str, Tensor],
) -> ParameterGrid:
    """Return the grid of a group. One with a start leaves the weights of plain rounding in the parameter.

    Args:
        original: the parameter in the dtype of the checkpoint.
        parameter: the parameter in the dtype of the matrix products.
        recorded: inputs of the parameter.
        started: the levels of the group if it has a start.
        imported: mean squares of the inputs of linear layers by name, float32 [in], in place of the recorded ones.
    """
    recipe, item = spec.recipe, group.rows[0].item
    scheme = grid_scheme(spec, item)
    places = RowPlaces(tuple(original.shape), [part.place for part in group.rows])
    weight = places.read(original).contiguous()  # each pass of the compiled loops would copy it otherwise
    importance = recorded.mean_squares(parameter) if _weighed(recipe, scheme) or not group.tuned else None
    measured = [None if importance is None else importance[_expert(part)] for part in group.rows]
    known = [imported.get(part.item.linear.name, one) for part, one in zip(group.rows, measured, strict=True)]
    bits, rate, rows = item.scheme.bits, recipe.range_rate(item.scheme.bits), list(group.rows)
    grouped = recorded.grouped(parameter)
    if started is not None:
        places.fill(parameter.data, lambda rows: _round(weight, scheme, min_zero, rows))
        if recipe.learn_integers and recipe.iters and bits in LEARNED_BITS and not scheme.type:
            latent = latent_grid(started, weight, recipe.iters, recipe.learning_rate(bits) * recipe.iters)
            return ParameterGrid(latent, parameter, places, rows, rate, tuned=True, grouped=grouped)
        return ParameterGrid(level_grid(started), parameter, places, rows, rate, tuned=rate > 0, grouped=grouped)
    searched = None
    if searchable(scheme) and (recipe.start != "range" or not group.tuned):
        parts = zip(group.rows, known, strict=True)
        searched = torch.cat([search_scale(weight[part.start : part.stop], scheme, inputs) for part, inputs in parts])
    grid = new_grid(
        weight,
        scheme,
        iterations=recipe.iters if group.tuned else 0,
        rate=recipe.learning_rate(bits),
        min_zero=min_zero,
        searched=searched,
        importance=known[0],
    )
    return ParameterGrid(grid, parameter, places, rows, rate, group.tuned, not group.tuned, grouped)


def _round(weight: Tensor, scheme: LayerScheme, min_zero: int, out: Tensor) -> None:
    """Write the weights of plain rounding into `out`, some rows at a time, since a grid has a state for each weight."""
    for rows in row_chunks(len(weight), weight.shape[1]):
        new_grid(weight[rows], scheme, min_zero=min_zero).quantize_into(out[rows])


def _learns(recipe: Recipe) -> bool:
    """Return whether integers or scales depend on more of the inputs than their mean squares."""
    return recipe.iters > 0 or recipe.start == "gptq"


def starts(group: RowGroup, spec: JobSpec) -> bool:
    """Return whether the integers of a group are found from the Gram matrices of its inputs."""
    return group.tuned and spec.recipe.start == "gptq"


def _weighed(recipe: Recipe, scheme: LayerScheme) -> bool:
    """Return whether the search for the layer's scales is weighted by the mean square of each input.

    For block types it always is, unless the recipe uses no calibration text.
    """
    if scheme.type:
        return recipe.reads_text
    return recipe.start != "range" and searchable(scheme)


def grid_scheme(spec: JobSpec, item: LayerPlan) -> LayerScheme:
    """Return the scheme whose grid is tuned: that of the layer, or Q4_0 if an output of that type is requested.

    Both represent the same values. The scales of the type are searched and then fixed, which gave a loss 10 to 13 %
    lower than tuned ranges (blocks 5 and 20 of SmolLM2-135M, 100 steps).
    """
    plain = tuned_as("q4_0")
    return LayerScheme.of_type("q4_0") if item.scheme == plain and named_mix(spec.formats) else item.scheme


def expert_tokens(
    groups: list[RowGroup], recorded: InputStatistics, parameters: Mapping[str, Tensor], grids: list[ParameterGrid]
) -> list[MixtureTokens]:
    """Return the tokens of the experts of each mixture of a block."""
    found: dict[str, dict[int, int]] = {}
    for group in groups:
        if not _is_expert(group) or not recorded.knows(parameters[group.parameter]):
            continue
        counts = recorded.counts(parameters[group.parameter])
        for part in group.rows:
            stem, number = _stem(part)
            experts = found.setdefault(stem, {})
            experts[number] = max(experts.get(number, 0), int(counts[_expert(part)]))
        if len(counts) > 1:  # experts that stay in 16 bits have no rows
            for number, tokens in enumerate(counts.tolist()):
                experts.setdefault(number, tokens)
    left: dict[str, set[int]] = {}
    for grid in grids:
        for part in grid.rows if grid.few_tokens else ():
            stem, number = _stem(part)
            left.setdefault(stem, set()).add(number)
    return [
        MixtureTokens(
            stem,
            tuple(experts.get(number, 0) for number in range(1 + max(experts))),
            tuple(sorted(left.get(stem, ()))),
        )
        for stem, experts in found.items()
    ]


def _stem(part: GridRows) -> tuple[str, int]:
    """Return the path of the experts in the checkpoint, and the number of the expert that has these rows."""
    stem, _, rest = part.item.linear.name.rpartition(".experts.")
    return f"{stem}.experts", int(rest.split(".")[0])
