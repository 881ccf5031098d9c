"""The part of a checkpoint tensor that is the weight of one linear layer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TensorPart:
    """The part of a checkpoint tensor that is the weight of one linear layer.

    Attributes:
        tensor: name in the checkpoint.
        expert: index in the first dimension; None for a tensor with two dimensions.
        rows: start, stop and step of the output dimension.
        transposed: whether the tensor is stored as [in, out] or [experts, in, out].
    """

    tensor: str
    expert: int | None
    rows: tuple[int, int, int]
    transposed: bool
