"""Gram matrices of the inputs of weights, summed up while a block runs.

Weights that get the same inputs, such as those of the query, key and value projections, share one matrix.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping

import torch
from torch import Tensor

from core.quant.products import Product, ProductObserver


class GramMatrices:
    """Sums of the products of the inputs of parameters, by expert.

    Args:
        experts: parameter -> its number of experts, 1 for a linear layer.
        wanted: parameter -> the experts whose inputs are recorded; all by default.
    """

    def __init__(self, experts: Mapping[Tensor, int], wanted: Mapping[Tensor, Collection[int]] | None = None) -> None:
        self._experts = dict(experts)
        self._wanted = {parameter: range(count) for parameter, count in experts.items()} if wanted is None else wanted
        self._sums: dict[Tensor, dict[int, Tensor]] = {}
        self._counts: dict[tuple[Tensor, int], int] = {}
        self._leaders: dict[Tensor, Tensor] = {}
        self._last: tuple[Tensor, Tensor] | None = None

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Record the inputs of all products in this context."""
        with ProductObserver(self._experts, self._record):
            yield
        self._last = None

    def of(self, parameter: Tensor, expert: int = 0) -> Tensor:
        """Return the mean of x^T x over the inputs x of a parameter, float32 [in, in].

        An expert without inputs has the mean of those that were recorded; a parameter without inputs, the identity.
        """
        leader = self._leaders.get(parameter)
        if leader is None or leader not in self._sums:
            return torch.eye(parameter.shape[-1], device=parameter.device)
        sums = self._sums[leader]
        if expert in sums:
            return sums[expert] / self._counts[leader, expert]
        total = torch.zeros_like(next(iter(sums.values())))
        for matrix in sums.values():
            total += matrix
        return total / sum(self._counts[leader, number] for number in sums)

    def _record(self, product: Product) -> None:
        parameter, inputs = product.parameter, product.inputs.detach()
        if product.expert is None:
            self._leaders.setdefault(parameter, parameter)
            for number in self._wanted[parameter]:
                rows, _ = product.of_expert(number)
                if len(rows):
                    self._add(parameter, number, rows)
            return
        if self._last is not None and _same(self._last[0], inputs):
            leader = self._leaders.setdefault(parameter, self._last[1])
            if leader is not parameter:
                return
        self._leaders.setdefault(parameter, parameter)
        if self._leaders[parameter] is parameter:
            self._add(parameter, product.expert, inputs.reshape(-1, inputs.shape[-1]))
        self._last = (inputs, parameter)

    def _add(self, parameter: Tensor, expert: int, rows: Tensor) -> None:
        if expert not in self._wanted[parameter]:
            return
        rows, width = rows.float(), rows.shape[-1]
        sums = self._sums.setdefault(parameter, {})
        if expert not in sums:
            sums[expert] = torch.zeros(width, width, device=rows.device)
        sums[expert].addmm_(rows.T, rows)
        self._counts[parameter, expert] = self._counts.get((parameter, expert), 0) + len(rows)


def _same(one: Tensor, other: Tensor) -> bool:
    return one.data_ptr() == other.data_ptr() and one.shape == other.shape and one.stride() == other.stride()
