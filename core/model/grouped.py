"""Products of rows that are sorted by expert with the matrices of the experts, in few different shapes.

On a CPU, oneDNN compiles a kernel for each shape of a product in 16 bits and keeps about a thousand of them. The
numbers of tokens that experts get differ in every pass, so the time and the memory for new kernels would grow from
block to block. The rows of an expert are therefore filled up with zeros to one of about thirty numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import handle_torch_function, has_torch_function

ROWS: Final = 16
"""Smallest multiple of rows of a product."""


def ends_of(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
    """Return the end of the rows of each expert, int [experts], from the arguments of a function in `GROUPED`."""
    ends: Tensor = kwargs["offs"] if "offs" in kwargs else args[2]
    return ends


def used_experts(ends: Sequence[int]) -> list[tuple[int, slice]]:
    """Return the experts with rows, and their rows, from the end of the rows of each expert."""
    starts = [0, *ends[:-1]]
    return [(number, slice(a, b)) for number, (a, b) in enumerate(zip(starts, ends, strict=True)) if b > a]


def filled_up(rows: Tensor) -> Tensor:
    """Return rows [n, in] with rows of zeros behind them, where kernels are compiled for each shape.

    The number of rows becomes a multiple of an eighth of the next power of two, at least of `ROWS`.
    """
    missing = -len(rows) % max(ROWS, (1 << (len(rows) - 1).bit_length()) // 8)
    compiled = rows.device.type == "cpu" and rows.dtype != torch.float32
    return functional.pad(rows, (0, 0, 0, missing)) if compiled and missing else rows


def grouped_product(inputs: Tensor, matrices: Tensor, ends: Sequence[int]) -> Tensor:
    """Return the products [rows, out] of sorted inputs [rows, in] and matrices [experts, in, out].

    Args:
        ends: end of the rows of each expert.
    """
    output = inputs.new_zeros(len(inputs), matrices.shape[2])
    for expert, rows in used_experts(ends):
        part = inputs[rows]
        output[rows] = torch.mm(filled_up(part), matrices[expert])[: len(part)]
    return output


def in_few_shapes(inputs: Tensor, matrices: Tensor, ends: Tensor) -> Tensor:
    """Return `grouped_product`, as one function for modes such as `torch.overrides.TorchFunctionMode`.

    A mode that observes products gets the whole product instead of those of single experts, whose rows are filled up.
    """
    if has_torch_function((inputs, matrices)):
        result: Tensor = handle_torch_function(in_few_shapes, (inputs, matrices), inputs, matrices, ends)
        return result
    return grouped_product(inputs, matrices, ends.tolist())


GROUPED: Final[frozenset[Any]] = frozenset({
    torch._grouped_mm, getattr(functional, "grouped_mm", torch._grouped_mm), in_few_shapes
})  # fmt: skip
"""Functions that multiply sorted rows by the matrices of experts."""
