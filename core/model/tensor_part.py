"""The part of a tensor of a checkpoint that is the weight of one linear layer. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TensorPart:
    """The weight or bias of a linear layer as a slice of a tensor of the checkpoint.

    Attributes:
        tensor: name in the checkpoint.
        expert: index in the first dimension of a tensor with the weights of all experts; None if the tensor belongs to
            one expert or layer. A 2-D tensor with an expert index holds the matrices of all experts below each other,
            each of them [out, in], or [in, out] if transposed (DBRX).
        rows: start, stop and step of the slice of the output dimension.
        transposed: the matrices are stored as [in, out] instead of [out, in].
    """

    tensor: str
    expert: int | None
    rows: tuple[int, int, int]
    transposed: bool
