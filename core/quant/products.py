"""Observation of the matrix products with given parameters, while a block runs.

The functions of torch are observed instead of modules. So the inputs of any parameter are found: that of a linear
layer, of one expert in a loop over experts, or of all experts in a grouped product, whose inputs are sorted by expert.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from core.model.grouped import GROUPED, ends_of

_PRODUCTS: Final[frozenset[Any]] = frozenset({
    functional.linear, torch.matmul, torch.mm, torch.bmm, torch.addmm, torch.baddbmm, torch.einsum,
    Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__, Tensor.mm, Tensor.bmm, Tensor.addmm, Tensor.baddbmm,
    *GROUPED,
})  # fmt: skip


@dataclass(frozen=True)
class Product:
    """One product of inputs and a parameter.

    Attributes:
        parameter: the whole parameter.
        expert: number of the expert whose matrix was multiplied; None if all experts were.
        ends: for a product with all experts whose inputs are sorted by expert: the end of the rows of each expert,
            int64 [experts]; None if the inputs are [experts, rows, in].
        inputs: [..., in].
        output: [..., out].
    """

    parameter: Tensor
    expert: int | None
    ends: Tensor | None
    inputs: Tensor
    output: Tensor

    def of_expert(self, number: int) -> tuple[Tensor, Tensor]:
        """Return the inputs [rows, in] and the outputs [rows, out] of one expert; no rows if it was not multiplied."""
        if self.expert is not None:
            stop = None if self.expert == number else 0
            return (
                self.inputs.reshape(-1, self.inputs.shape[-1])[:stop],
                self.output.reshape(-1, self.output.shape[-1])[:stop],
            )
        if self.ends is None:
            used = (self.inputs[number] != 0).any(-1)
            return self.inputs[number][used], self.output[number][used]
        rows = slice(int(self.ends[number - 1]) if number else 0, int(self.ends[number]))
        return self.inputs[rows], self.output[rows]


class ProductObserver(TorchFunctionMode):
    """A context in which each product with one of the parameters is reported.

    Args:
        experts: parameter -> its number of experts, 1 for a linear layer. The parameters must own their memory; views
            of them, such as the matrix of one expert, are recognized by it.
        seen: receives each product.
    """

    def __init__(self, experts: Mapping[Tensor, int], seen: Callable[[Product], None]) -> None:
        super().__init__()
        self._owners = {
            parameter.untyped_storage().data_ptr(): (parameter, count) for parameter, count in experts.items()
        }
        self._seen = seen

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Call a function of torch, and report a product with one of the parameters."""
        result = func(*args, **(kwargs or {}))
        if func in _PRODUCTS:
            operands = [part for part in _tensors((*args, *(kwargs or {}).values())) if part.is_floating_point()]
            for place, weight in enumerate(operands):
                owner = self._owners.get(weight.untyped_storage().data_ptr()) if weight.dim() > 1 else None
                if owner is not None and owner[0].device == weight.device:
                    found = _product(func, owner, place, operands, result, args, kwargs or {})
                    if found is not None:
                        self._seen(found)
                    break
        return result


def _product(
    func: Any,
    owner: tuple[Tensor, int],
    place: int,
    operands: list[Tensor],
    result: Tensor,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Product | None:
    (parameter, experts), weight = owner, operands[place]
    others = [part for number, part in enumerate(operands) if number != place and part.dim() > 1]
    if not others:
        return None
    inputs = next((part for part in reversed(others) if part.shape[-1] in weight.shape[-2:]), others[0])
    if place == 0 and func is not functional.linear and len(operands) == 2:  # weight @ inputs
        inputs, result = inputs.transpose(-1, -2), result.transpose(-1, -2)
    if func in GROUPED:
        return Product(parameter, None, ends_of(args, kwargs).long(), inputs, result)
    if experts > 1 and weight.dim() == 3 and weight.shape[0] == experts and inputs.dim() == 3:
        return Product(parameter, None, None, inputs, result)
    expert = (weight.storage_offset() - parameter.storage_offset()) // (parameter.numel() // experts)
    return Product(parameter, expert, None, inputs, result)


def _tensors(values: Any) -> list[Tensor]:
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _tensors(value)
    return found
