"""The place of each linear layer of a checkpoint in the parameters of a transformers model.

A linear layer of the checkpoint can be a whole parameter (`q_proj.weight`), one expert of a parameter of all experts,
half of the rows of such an expert (gate and up), or several parameters. transformers' own conversion is run on row
numbers instead of weights, so the result holds for every conversion that keeps the inputs of a layer in order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from core.model.sources import ParameterSource
from core.model.tensor_part import TensorPart
from core.model.tree import Linear

Rows = slice | Tensor
"""Rows of a matrix: a slice, or indices int64 [n]."""


@dataclass(frozen=True)
class ParameterSlice:
    """Rows of a linear layer that are stored in one parameter.

    Attributes:
        parameter: name in the model.
        expert: index in the first dimension of a parameter with three dimensions; None if it has two.
        height: rows of the matrix of one expert if the parameter has two dimensions and holds all experts below each
            other (DBRX), else 0.
        rows: rows of the parameter's matrix, in the order of `of`.
        of: the same rows in the linear layer.
        transposed: whether the matrix of the parameter is [in, out] instead of [out, in].
    """

    parameter: str
    expert: int | None
    rows: Rows
    of: Rows
    transposed: bool
    height: int = 0

    def experts(self, shape: Sequence[int]) -> int:
        """Return the number of experts in a parameter of this shape; 1 if it belongs to one layer."""
        if self.expert is None:
            return 1
        return shape[0] // self.height if self.height else shape[0]

    def view(self, parameter: Tensor) -> Tensor:
        """Return the rows [n, in] of a parameter or its gradient: a view, or a copy if `rows` are indices."""
        if self.height:
            parameter = parameter.view(-1, self.height, parameter.shape[1])
        matrix = parameter if self.expert is None else parameter[self.expert]
        return (matrix.T if self.transposed else matrix)[self.rows]


class RowNumbers:
    """The rows of the tensors that `source` joins, as numbered rows of its parameters.

    Args:
        source: with a converter.
        shapes: of the tensors of the checkpoint.
        transposed: whether the tensors are [in, out] or [experts, in, out].
        model: of transformers.

    Raises:
        ValueError: the conversion changes the order of the inputs.
    """

    def __init__(
        self, source: ParameterSource, shapes: Mapping[str, tuple[int, ...]], transposed: bool, model: Any
    ) -> None:
        self._first: dict[str, int] = {}
        self._height: dict[str, int] = {}
        numbers, count = {}, 0
        for name in source.names:
            shape = list(shapes[name])
            inputs = len(shape) - 2 if transposed else len(shape) - 1
            shape[inputs] = 1
            size = int(torch.tensor(shape).prod())
            self._first[name], self._height[name] = count, shape[inputs - 1 if not transposed else inputs + 1]
            numbers[name] = torch.arange(count, count + size).view(shape)
            count += size
        self._places: list[tuple[str, bool, int, Tensor]] = []
        for name, value in source.decided(shapes, model).build(numbers.__getitem__, model).items():
            wanted = tuple(model.get_parameter(name).shape)
            flipped = len(wanted) >= 2 and value.shape[-1] == wanted[-1] and value.shape[-2] == 1 != wanted[-2]
            if value.dim() != len(wanted) or (not flipped and value.shape[-1] != 1):
                raise ValueError(f"{name} does not keep the order of the inputs")
            height = wanted[-1] if flipped else wanted[-2]
            place = torch.full((count,), -1)
            place[value.reshape(-1)] = torch.arange(value.numel())
            self._places.append((name, flipped, height if len(wanted) == 3 else 0, place))

    def slices(self, tensor: str, expert: int | None, rows: tuple[int, int, int] | None) -> list[ParameterSlice]:
        """Return the places of rows of a tensor, or of one expert of it.

        Args:
            rows: start, stop and step; None for all.
        """
        first, height = self._first[tensor] + (expert or 0) * self._height[tensor], self._height[tensor]
        numbers = torch.arange(first, first + height)[slice(*rows) if rows else slice(None)]
        found = []
        for parameter, transposed, experts, place in self._places:
            there = place[numbers]
            of = torch.nonzero(there >= 0).flatten()
            if not len(of):
                continue
            there = there[of]
            index = None
            if experts:
                index = int(there[0]) // experts
                if not bool((there // experts == index).all()):
                    raise ValueError(f"{tensor} is divided between several experts of {parameter}")
                there = there % experts
            whole = len(of) == len(numbers)
            found.append(
                ParameterSlice(parameter, index, as_rows(there), slice(None) if whole else as_rows(of), transposed)
            )
        return found


def as_rows(numbers: Tensor) -> Rows:
    """Return row numbers as a slice if they are evenly spaced, else unchanged."""
    if len(numbers) == 1:
        return slice(int(numbers[0]), int(numbers[0]) + 1, 1)
    step = int(numbers[1] - numbers[0])
    if step > 0 and bool((numbers.diff() == step).all()):
        return slice(int(numbers[0]), int(numbers[-1]) + 1, step)
    return numbers


def whole(parameter: str, linear: Linear, dimensions: int) -> ParameterSlice:
    """Return the place of a linear layer whose tensor is a parameter with so many dimensions, without a conversion."""
    part = linear.part
    if part is None:
        return ParameterSlice(parameter, None, slice(None), slice(None), linear.transposed)
    stacked = part.expert is not None and dimensions == 2
    height = linear.in_features if part.transposed else linear.out_features
    return joined(parameter, part, height if stacked else 0)


def joined(parameter: str, part: TensorPart, height: int) -> ParameterSlice:
    """Return the place of a linear layer that is the slice `part` of a parameter; see `ParameterSlice.height`."""
    return ParameterSlice(parameter, part.expert, slice(*part.rows), slice(None), part.transposed, height)


def assemble(slices: Sequence[ParameterSlice], parameters: Mapping[str, Tensor], out_features: int) -> Tensor:
    """Return the weight [out, in] of a linear layer from the parameters that hold it; a copy if there are several."""
    if len(slices) == 1 and slices[0].of == slice(None):
        return slices[0].view(parameters[slices[0].parameter])
    views = [part.view(parameters[part.parameter]) for part in slices]
    weight = views[0].new_empty(out_features, views[0].shape[1])
    for part, view in zip(slices, views, strict=True):
        weight[part.of] = view
    return weight
