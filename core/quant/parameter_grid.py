"""The grid of the rows of one parameter that have the same quantization scheme.

A parameter with the weights of all experts is one matrix of many rows for the grid, so that a step needs no loop over
the experts. Scales belong to groups within a row; rows of different experts never share one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from core.formats.gguf.blocks import BlockLinear
from core.formats.quantized import QuantizedLinear
from core.formats.stored import StoredLayer
from core.model.slices import ParameterSlice
from core.model.tree import LayerPlan
from core.quant.tuned_grid import TunedGrid


@dataclass(frozen=True)
class GridRows:
    """Rows of a grid that belong to one linear layer.

    Attributes:
        item: plan of the layer.
        place: where the rows are in the parameter, and in the layer.
        start, stop: rows of the grid.
    """

    item: LayerPlan
    place: ParameterSlice
    start: int
    stop: int


class RowPlaces:
    """The rows of a parameter that a grid contains, in the order of the grid.

    Args:
        shape: of the parameter.
        places: slices of the parameter with the same storage order.
    """

    def __init__(self, shape: Sequence[int], places: Sequence[ParameterSlice]) -> None:
        self._transposed, self._stacked = places[0].transposed, places[0].height
        if self._stacked:
            shape = (shape[0] // self._stacked, self._stacked, shape[1])
        height = shape[-1] if self._transposed else shape[-2]
        numbers = torch.cat([
            (place.expert or 0) * height + torch.arange(height)[place.rows] for place in places
        ])  # fmt: skip
        first = int(numbers[0])
        step = torch.equal(numbers, torch.arange(first, first + len(numbers)))
        self._slice = slice(first, first + len(numbers)) if step and not self._transposed else None
        self._index = (numbers // height, numbers % height)
        self._whole = step and len(numbers) == height * (shape[0] if len(shape) == 3 else 1)

    def read(self, parameter: Tensor) -> Tensor:
        """Return the rows [n, in] of a parameter or its gradient: a view if they are contiguous, else a copy."""
        if self._slice is not None:
            return parameter.reshape(-1, parameter.shape[-1])[self._slice]
        matrices = self._matrices(parameter)
        if self._whole:
            return matrices.reshape(-1, matrices.shape[-1])
        return matrices[self._index]

    def write(self, parameter: Tensor, rows: Tensor) -> None:
        """Overwrite the rows; no effect if `rows` is the view that `read` returned."""
        if rows.untyped_storage().data_ptr() == parameter.untyped_storage().data_ptr():
            return
        if self._slice is None:
            matrices = self._matrices(parameter)
            if self._whole:
                matrices.copy_(rows.view(matrices.shape))
            else:
                matrices[self._index] = rows
        else:
            self.read(parameter).copy_(rows)

    def fill(self, parameter: Tensor, write: Callable[[Tensor], object]) -> None:
        """Overwrite the rows by what `write` stores in the tensor [n, in] that it gets."""
        rows = self.read(parameter)
        write(rows)
        self.write(parameter, rows)

    def _matrices(self, parameter: Tensor) -> Tensor:
        height = self._stacked or parameter.shape[-2]
        matrices = parameter.view(-1, height, parameter.shape[-1])
        return matrices.transpose(1, 2) if self._transposed else matrices


@dataclass
class ParameterGrid:
    """A grid, and the parameter whose rows it quantizes.

    Attributes:
        grid: of all rows.
        parameter: of the block, in the dtype of the matrix products.
        places: rows of the parameter.
        rows: the linear layers, in the order of the grid.
        factor_rate: initial learning rate of the range factors.
        tuned: whether steps change the grid; otherwise it stays rounding to nearest, or the start.
        few_tokens: whether the rows are experts with too few tokens of calibration text to be tuned.
        grouped: whether the block multiplies the parameter by grouped products, with the inputs sorted by expert.
    """

    grid: TunedGrid
    parameter: nn.Parameter
    places: RowPlaces
    rows: list[GridRows]
    factor_rate: float
    tuned: bool
    few_tokens: bool = False
    grouped: bool = False

    def layers(self) -> list[tuple[GridRows, StoredLayer]]:
        """Return the rows of each linear layer with the present integers of the grid."""
        return layers_of(self.rows, self.grid.freeze(""))


def layers_of(rows: Sequence[GridRows], frozen: StoredLayer) -> list[tuple[GridRows, StoredLayer]]:
    """Return the rows of each linear layer of a grid.

    Args:
        frozen: all rows of the grid.
    """
    if isinstance(frozen, BlockLinear) and len(rows) == 1:
        return [(rows[0], replace(frozen, name=rows[0].item.linear.name))]
    if not isinstance(frozen, QuantizedLinear):
        raise TypeError("a block type is quantized one layer at a time")
    return [
        (
            part,
            replace(
                frozen,
                name=part.item.linear.name,
                ints=frozen.ints[part.start : part.stop],
                scales=frozen.scales[part.start : part.stop],
                zeros=frozen.zeros[part.start : part.stop],
            ),
        )
        for part in rows
    ]


def joined(parts: list[tuple[GridRows, StoredLayer]]) -> StoredLayer:
    """Return one linear layer whose rows are in several parameters."""
    if len(parts) == 1:
        return parts[0][1]
    layers = [layer for _, layer in parts if isinstance(layer, QuantizedLinear)]
    if len(layers) != len(parts):
        raise TypeError("a layer with a block type cannot be divided between parameters")
    height = parts[0][0].item.linear.out_features
    order = torch.cat([torch.arange(height)[part.place.of] for part, _ in parts]).argsort()
    return replace(
        layers[0],
        ints=torch.cat([layer.ints for layer in layers])[order],
        scales=torch.cat([layer.scales for layer in layers])[order],
        zeros=torch.cat([layer.zeros for layer in layers])[order],
    )
