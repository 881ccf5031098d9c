"""One quantized linear layer in memory: integers, scales and zero points, before or after any file format.

Knows what the numbers mean and nothing of how a format packs them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from core.schemes import LayerScheme


@dataclass(frozen=True, eq=False)
class QuantizedLinear:
    """A layer whose weight is `scales * (ints - zeros)`, group by group along the inputs.

    Attributes:
        name: the checkpoint's own, without `.weight`.
        scheme: bits, group size and symmetry; never 16 bits.
        ints: uint8 [out, in], each below 2^bits.
        scales: float16 [out, groups]; may be negative (full-range symmetric rounding uses the sign).
        zeros: uint8 [out, groups], each below 2^bits; 2^(bits-1) where the scheme is symmetric.
    """

    name: str
    scheme: LayerScheme
    ints: Tensor
    scales: Tensor
    zeros: Tensor

    def __post_init__(self) -> None:
        if not self.scheme.quantized or self.ints.dim() != 2:
            raise ValueError(f"{self.name} is not a quantized matrix")
        groups = (self.out_features, self.scheme.groups(self.in_features))
        expected = (
            ("ints", self.ints, torch.uint8, tuple(self.ints.shape)),
            ("scales", self.scales, torch.float16, groups),
            ("zeros", self.zeros, torch.uint8, groups),
        )
        for what, tensor, dtype, shape in expected:
            if tensor.dtype != dtype or tuple(tensor.shape) != shape:
                raise ValueError(
                    f"{self.name}: {what} is {tensor.dtype} {tuple(tensor.shape)}, expected {dtype} {shape}"
                )

    @property
    def in_features(self) -> int:
        return self.ints.shape[1]

    @property
    def out_features(self) -> int:
        return self.ints.shape[0]

    def dequantize(self) -> Tensor:
        """The weight, float32 [out, in].

        Exact: a level difference has at most 9 significant bits and a float16 scale 11, and float32 holds 24.
        The last group may be cut short, as files of other programs have it.
        """
        size = self.scheme.group_of(self.in_features)
        whole = self.in_features // size
        weight = self.ints.to(torch.float32)
        scales, zeros = self.scales.to(torch.float32).unsqueeze(-1), self.zeros.to(torch.float32).unsqueeze(-1)
        body = weight[:, : whole * size].view(self.out_features, whole, size)
        body.sub_(zeros[:, :whole]).mul_(scales[:, :whole])
        if whole * size < self.in_features:
            weight[:, whole * size :].sub_(zeros[:, -1]).mul_(scales[:, -1])
        return weight
