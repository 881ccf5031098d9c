"""One quantized linear layer in memory: integers, scales and zero points, before or after any file format.

Knows what the numbers mean and nothing of how a format packs them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from core.schemes import LayerScheme

_SLICE = 1 << 20
"""Weights that are gathered at a time."""


@dataclass(frozen=True, eq=False)
class QuantizedLinear:
    """A layer whose weight is `scales * (ints - zeros)`, group by group along the inputs.

    Attributes:
        name: the checkpoint's own, without `.weight`.
        scheme: bits, group size and symmetry; never 16 bits.
        ints: uint8 [out, in], each below 2^bits.
        scales: float16 [out, groups]; may be negative (full-range symmetric rounding uses the sign).
        zeros: uint8 [out, groups], each below 2^bits; 2^(bits-1) where the scheme is symmetric.
        g_idx: int32 [in], the group of each input where they do not follow each other (GPTQ's `desc_act`), else None.
            Each group has as many inputs as it has without.
    """

    name: str
    scheme: LayerScheme
    ints: Tensor
    scales: Tensor
    zeros: Tensor
    g_idx: Tensor | None = None

    def __post_init__(self) -> None:
        if not self.scheme.quantized or self.ints.dim() != 2:
            raise ValueError(f"{self.name} is not a quantized matrix")
        groups = (self.out_features, self.scheme.groups(self.in_features))
        expected = (
            ("ints", self.ints, torch.uint8, tuple(self.ints.shape)),
            ("scales", self.scales, torch.float16, groups),
            ("zeros", self.zeros, torch.uint8, groups),
            *([] if self.g_idx is None else [("g_idx", self.g_idx, torch.int32, (self.in_features,))]),
        )
        for what, tensor, dtype, shape in expected:
            if tensor.dtype != dtype or tuple(tensor.shape) != shape:
                raise ValueError(
                    f"{self.name}: {what} is {tensor.dtype} {tuple(tensor.shape)}, expected {dtype} {shape}"
                )
        if self.g_idx is not None:
            check_groups(self.name, self.scheme, self.g_idx, self.in_features)

    @property
    def in_features(self) -> int:
        return self.ints.shape[1]

    @property
    def out_features(self) -> int:
        return self.ints.shape[0]

    def parts(self) -> tuple[Tensor, ...]:
        """All tensors that make up the layer."""
        parts = (self.ints, self.scales, self.zeros)
        return parts if self.g_idx is None else (*parts, self.g_idx)

    def take(self, order: Tensor) -> QuantizedLinear:
        """The layer of these rows, int64 [rows], in this order."""
        return replace(self, ints=self.ints[order], scales=self.scales[order], zeros=self.zeros[order])

    def dequantize(self) -> Tensor:
        """The weight, float32 [out, in].

        Exact: a level difference has at most 9 significant bits and a float16 scale 11, and float32 holds 24.
        The last group may be cut short, as files of other programs have it.
        """
        if self.g_idx is not None:
            return self._gathered(self.g_idx.to(torch.int64))
        size = self.scheme.group_of(self.in_features)
        whole = self.in_features // size
        weight = self.ints.to(torch.float32)
        scales, zeros = self.scales.to(torch.float32).unsqueeze(-1), self.zeros.to(torch.float32).unsqueeze(-1)
        body = weight[:, : whole * size].view(self.out_features, whole, size)
        body.sub_(zeros[:, :whole]).mul_(scales[:, :whole])
        if whole * size < self.in_features:
            weight[:, whole * size :].sub_(zeros[:, -1]).mul_(scales[:, -1])
        return weight

    def _gathered(self, groups: Tensor) -> Tensor:
        """`dequantize` with the group of each input given, int64 [in]; a slice of rows at a time."""
        weight = self.ints.to(torch.float32)
        step = max(1, _SLICE // self.in_features)
        for start in range(0, self.out_features, step):
            rows = slice(start, start + step)
            weight[rows].sub_(self.zeros[rows].to(torch.float32)[:, groups])
            weight[rows].mul_(self.scales[rows].to(torch.float32)[:, groups])
        return weight


def natural_groups(scheme: LayerScheme, in_features: int) -> Tensor:
    """The `g_idx` of groups in their natural order: int32 [in], k // group."""
    return torch.arange(in_features, dtype=torch.int32) // scheme.group_of(in_features)


def check_groups(name: str, scheme: LayerScheme, g_idx: Tensor, in_features: int) -> None:
    """Raise ValueError unless `g_idx`, of integers, puts each input into a group and fills the groups as they must be.

    GPTQ sorts the inputs and cuts the sorted list into groups, so they have the sizes that they have unsorted.
    """
    if g_idx.dtype not in (torch.int32, torch.int64) or tuple(g_idx.shape) != (in_features,):
        raise ValueError(f"{name}: g_idx is not a list of {in_features} groups")
    expected = torch.bincount(natural_groups(scheme, in_features).to(g_idx.device))
    low, high = int(g_idx.min()), int(g_idx.max())
    if low < 0 or high >= len(expected):
        raise ValueError(f"{name}: g_idx names the group {low if low < 0 else high} of {len(expected)}")
    if not torch.equal(torch.bincount(g_idx, minlength=len(expected)), expected):
        raise ValueError(f"{name}: g_idx does not divide the inputs into groups of {scheme.group_of(in_features)}")
