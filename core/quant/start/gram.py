"""Gram matrices of the inputs of weights, summed up while a block runs.

Weights that get the same inputs, such as those of the query, key and value projections, share one matrix.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping

import torch
from torch import Tensor

from core.quant.products import Product, ProductObserver

GramKey = tuple[int, int]
"""Identity of the parameter for which a matrix is summed, and the expert."""


class GramMatrices:
    """Sums of the products of the inputs of parameters, by expert.

    Args:
        experts: parameter -> its number of experts, 1 for a linear layer.
        wanted: parameter -> the experts whose inputs are recorded; all by default.
    """

    def __init__(self, experts: Mapping[Tensor, int], wanted: Mapping[Tensor, Collection[int]] | None = None) -> None:
        self._experts = dict(experts)
        self._wanted = {parameter: range(count) for parameter, count in experts.items()} if wanted is None else wanted
        self._sums: dict[GramKey, Tensor] = {}
        self._counts: dict[GramKey, int] = {}
        self._leaders: dict[Tensor, Tensor] = {}
        self._last: tuple[Tensor, Tensor] | None = None

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Record the inputs of all products in this context."""
        with ProductObserver(self._experts, self._record):
            yield
        self._last = None

    def of(self, parameter: Tensor, expert: int = 0) -> Tensor | None:
        """Return the mean of x^T x over the inputs x of a parameter, float32 [in, in]; None without inputs.

        The result is not a copy. No inputs can be recorded after the first call.
        """
        key = self.key(parameter, expert)
        found = self._sums.get(key)
        if found is not None and key in self._counts:
            found /= self._counts.pop(key)
        return found

    def key(self, parameter: Tensor, expert: int = 0) -> GramKey:
        """Return the key of the matrix of a parameter, which is that of others with the same inputs."""
        return id(self._leaders.get(parameter, parameter)), expert

    def release(self, key: GramKey) -> None:
        """Free a matrix."""
        self._sums.pop(key, None)

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
        rows, width, key = rows.float(), rows.shape[-1], (id(parameter), expert)
        if key not in self._sums:
            self._sums[key] = torch.zeros(width, width, device=rows.device)
        self._sums[key].addmm_(rows.T, rows)
        self._counts[key] = self._counts.get(key, 0) + len(rows)


def _same(one: Tensor, other: Tensor) -> bool:
    return one.data_ptr() == other.data_ptr() and one.shape == other.shape and one.stride() == other.stride()
