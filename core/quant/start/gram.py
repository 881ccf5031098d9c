"""Gram matrices of the inputs of weights, summed up while a block runs.

Weights that get the same inputs, such as those of the query, key and value projections, share one matrix.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from core.quant.products import Product, ProductObserver


class GramMatrices:
    """Sums of the products of the inputs of parameters, by expert.

    Args:
        experts: parameter -> its number of experts, 1 for a linear layer.
    """

    def __init__(self, experts: Mapping[Tensor, int]) -> None:
        self._experts = dict(experts)
        self._sums: dict[Tensor, Tensor] = {}
        self._counts: dict[Tensor, Tensor] = {}
        self._leaders: dict[Tensor, Tensor] = {}
        self._last: tuple[Tensor, Tensor] | None = None

    @property
    def wanted(self) -> bool:
        """Whether there is a parameter whose inputs are recorded."""
        return bool(self._experts)

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Record the inputs of all products in this context."""
        with ProductObserver(self._experts, self._record):
            yield
        self._last = None

    def of(self, parameter: Tensor, expert: int = 0) -> Tensor:
        """Return the mean of x^T x over the inputs x of a parameter, float32 [in, in].

        An expert without inputs has the mean of all experts; a parameter without inputs, the identity.
        """
        leader = self._leaders.get(parameter)
        if leader is None:
            return torch.eye(parameter.shape[-1], device=parameter.device)
        counts, sums = self._counts[leader], self._sums[leader]
        if counts[expert] > 0:
            return sums[expert] / counts[expert]
        return sums.sum(0) / counts.sum().clamp(min=1)

    def _record(self, product: Product) -> None:
        parameter, inputs = product.parameter, product.inputs.detach()
        if product.expert is None:
            self._leaders.setdefault(parameter, parameter)
            for number in range(self._experts[parameter]):
                rows, _ = product.of_expert(number)
                if len(rows):
                    self._add(parameter, number, rows)
            return
        if self._last is not None and self._last[0] is not None and _same(self._last[0], inputs):
            leader = self._leaders.setdefault(parameter, self._last[1])
            if leader is not parameter:
                return
        self._leaders.setdefault(parameter, parameter)
        if self._leaders[parameter] is parameter:
            self._add(parameter, product.expert, inputs.reshape(-1, inputs.shape[-1]))
        self._last = (inputs, parameter)

    def _add(self, parameter: Tensor, expert: int, rows: Tensor) -> None:
        rows, width = rows.float(), rows.shape[-1]
        if parameter not in self._sums:
            count = self._experts[parameter]
            self._sums[parameter] = torch.zeros(count, width, width, device=rows.device)
            self._counts[parameter] = torch.zeros(count, device=rows.device)
        self._sums[parameter][expert].addmm_(rows.T, rows)
        self._counts[parameter][expert] += len(rows)


def _same(one: Tensor, other: Tensor) -> bool:
    return one.data_ptr() == other.data_ptr() and one.shape == other.shape and one.stride() == other.stride()
