"""Mean squares of the inputs of weights, recorded while a block runs."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import torch
from torch import Tensor

from core.quant.products import Product, ProductObserver


class InputStatistics:
    """Sums of squares of the inputs of parameters, by expert.

    Args:
        experts: parameter -> its number of experts, 1 for a linear layer.
        passes: number of forward passes that are recorded.
    """

    def __init__(self, experts: Mapping[Tensor, int], passes: int = 1) -> None:
        self._experts, self._passes = dict(experts), passes
        self._squares: dict[Tensor, Tensor] = {}
        self._counts: dict[Tensor, Tensor] = {}
        self._grouped: dict[Tensor, int] = {}

    def recording(self) -> contextlib.AbstractContextManager[object]:
        """Return a context in which the inputs are recorded."""
        return ProductObserver(self._experts, self._record) if self._experts else contextlib.nullcontext()

    def knows(self, parameter: Tensor) -> bool:
        """Return whether the inputs of a parameter are recorded."""
        return parameter in self._experts

    def grouped(self, parameter: Tensor) -> bool:
        """Return whether a parameter was multiplied once in each pass, by a grouped product with all experts."""
        return self._grouped.get(parameter) == self._passes

    def mean_squares(self, parameter: Tensor) -> Tensor | None:
        """Return the mean square of each input by expert, float32 [experts, in]; None if no input was recorded.

        Experts without inputs have the mean of all experts.
        """
        squares = self._squares.get(parameter)
        if squares is None:
            return None
        counts = self._counts[parameter].unsqueeze(-1)
        mean = squares.sum(0) / counts.sum().clamp(min=1)
        return torch.where(counts > 0, squares / counts.clamp(min=1), mean)

    def sums(self, parameter: Tensor, expert: int = 0) -> tuple[Tensor, int] | None:
        """Return the sums of squares of each input of an expert, float32 [in], and its number of tokens.

        None if no input was recorded.
        """
        squares = self._squares.get(parameter)
        return None if squares is None else (squares[expert], int(self._counts[parameter][expert]))

    def counts(self, parameter: Tensor) -> Tensor:
        """Return the number of tokens that each expert got, int64 [experts]."""
        return self._counts.get(parameter, torch.zeros(self._experts[parameter])).long().cpu()

    def _record(self, product: Product) -> None:
        inputs, experts = product.inputs.detach(), self._experts[product.parameter]
        width, device = inputs.shape[-1], inputs.device
        squares = self._squares.setdefault(product.parameter, torch.zeros(experts, width, device=device))
        counts = self._counts.setdefault(product.parameter, torch.zeros(experts, device=device))
        if squares.shape[-1] != width:
            return
        if product.expert is not None:
            rows = inputs.reshape(-1, width)
            squares[product.expert] += rows.float().square().sum(0)
            counts[product.expert] += len(rows)
        elif product.ends is None:
            squares += inputs.float().square().sum(1)
            counts += (inputs != 0).any(-1).sum(1)
        else:
            self._grouped[product.parameter] = self._grouped.get(product.parameter, 0) + 1
            rows = inputs[: int(product.ends[-1])]
            index = torch.bucketize(torch.arange(len(rows), device=device), product.ends, right=True)
            squares.index_add_(0, index, rows.float().square())
            counts.index_add_(0, index, torch.ones(len(rows), device=device))
