"""Steps of the experts of a block during the backward pass, one expert at a time.

The gradient of a parameter with all experts is as large as the parameter. Here each expert's part of it is computed,
used for the step of that expert's rows and dropped while it is in the cache, so that a step of 128 experts moves little
more memory than one of 8. The products are those of the grouped product that they replace: one for each expert that got
tokens, on contiguous rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from core.model.grouped import GROUPED, ends_of, filled_up, grouped_product, used_experts
from core.quant.parameter_grid import ParameterGrid
from core.quant.tuned_grid import TunedGrid


@dataclass(frozen=True)
class _ExpertRows:
    """The rows of one expert in a grid: a view of the grid, and the rows of the expert's matrix."""

    grid: TunedGrid
    rows: slice
    factor_rate: float


class ExpertSteps(TorchFunctionMode):
    """A context in which grouped products with parameters of experts step their grids in the backward pass.

    Args:
        layers: grids for which `supported` is true; their parameters must not require gradients.
        schedule: returns the number of units by which offsets move, and the fraction of the initial learning rate of
            range factors, of the present iteration.
    """

    def __init__(self, layers: Sequence[ParameterGrid], schedule: Callable[[], tuple[int, float]]) -> None:
        super().__init__()
        self._schedule = schedule
        self._anchor = torch.zeros((), requires_grad=True)
        self._seen: set[int] = set()
        self._experts: dict[int, tuple[Tensor, list[list[_ExpertRows]]]] = {}
        for layer in layers:
            parameter = layer.parameter
            _, experts = self._experts.setdefault(
                parameter.untyped_storage().data_ptr(), (parameter, [[] for _ in range(parameter.shape[0])])
            )
            for expert, rows, start, stop in _merged(layer):
                experts[expert].append(_ExpertRows(layer.grid.part(slice(start, stop)), rows, layer.factor_rate))

    def __enter__(self) -> ExpertSteps:
        self._seen.clear()
        super().__enter__()
        return self

    @staticmethod
    def supported(layer: ParameterGrid) -> bool:
        """Return whether the rows of a grid are stepped expert by expert."""
        return (
            layer.grouped
            and layer.grid.divisible
            and all(not part.place.transposed and isinstance(part.place.rows, slice) for part in layer.rows)
        )

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Call a function of torch; a grouped product with one of the parameters is computed here."""
        if func in GROUPED and isinstance(args[1], Tensor):
            address = args[1].untyped_storage().data_ptr()
            owner = self._experts.get(address)
            if owner is not None:
                if address in self._seen:
                    raise RuntimeError("experts are multiplied more than once in a pass, which would be stepped twice")
                self._seen.add(address)
                ends = ends_of(args, kwargs or {}).tolist()
                return _Product.apply(args[0], self._anchor, owner[0], ends, self._stepper(owner[1]))
        return func(*args, **(kwargs or {}))

    def _stepper(self, experts: list[list[_ExpertRows]]) -> Callable[[int, Tensor, Tensor], None]:
        def step(expert: int, gradient: Tensor, matrix: Tensor) -> None:
            units, share = self._schedule()
            for part in experts[expert]:
                part.grid.step(gradient[part.rows], matrix[part.rows], units, part.factor_rate * share)

        return step


class _Product(torch.autograd.Function):
    """A grouped product x W_e^T whose backward pass steps the weights."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, anchor: Tensor, parameter: Tensor, ends: list[int], step: Callable[..., None]
    ) -> Tensor:
        ctx.save_for_backward(inputs)
        ctx.parameter, ctx.ends, ctx.step = parameter, ends, step
        return grouped_product(inputs, parameter.data.transpose(1, 2), ends)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (inputs,) = ctx.saved_tensors
        needed = ctx.needs_input_grad[0]
        at_inputs = torch.zeros_like(inputs) if needed else None
        gradient = gradient.contiguous()
        for expert, rows in used_experts(ctx.ends):
            matrix, part = ctx.parameter.data[expert], filled_up(gradient[rows])
            if at_inputs is not None:
                at_inputs[rows] = torch.mm(part, matrix)[: rows.stop - rows.start]
            ctx.step(expert, torch.mm(part.t(), filled_up(inputs[rows])), matrix)
        return at_inputs, None, None, None, None


def _merged(layer: ParameterGrid) -> list[tuple[int, slice, int, int]]:
    """Return (expert, rows of its matrix, first and last row in the grid); gate and up are one entry if adjacent."""
    found: list[tuple[int, slice, int, int]] = []
    for part in layer.rows:
        rows, expert = part.place.rows, part.place.expert or 0
        assert isinstance(rows, slice)
        height = layer.parameter.shape[1]
        rows = slice(*rows.indices(height))
        if found and found[-1][0] == expert and found[-1][1].stop == rows.start and found[-1][1].step == rows.step == 1:
            rows, start = slice(found[-1][1].start, rows.stop, 1), found.pop()[2]
        else:
            start = part.start
        found.append((expert, rows, start, part.stop))
    return found
