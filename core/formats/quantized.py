"""A quantized linear layer in memory: integers, scales and zero points, independent of file formats."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from core.schemes import LayerScheme

_SLICE = 1 << 20
"""Weights that are gathered at a time."""


@dataclass(frozen=True, eq=False)
class QuantizedLinear:
    """A linear layer with the weight `scales * (ints - zeros)`, in groups along the inputs.

    Attributes:
        name: as in the checkpoint, without `.weight`.
        scheme: bits, group size and symmetry; never 16 bits.
        ints: uint8 [out, in], each below 2^bits.
        scales: float16 [out, groups]; may be negative, since full-range symmetric rounding uses the sign.
        zeros: uint8 [out, groups], each below 2^bits; 2^(bits-1) if the scheme is symmetric.
        g_idx: int32 [in], the group of each input for act-order (GPTQ's `desc_act`), else None. The sizes of the
            groups are the same in both cases.
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
        """Return all tensors of the layer."""
        parts = (self.ints, self.scales, self.zeros)
        return parts if self.g_idx is None else (*parts, self.g_idx)

    def take(self, order: Tensor) -> QuantizedLinear:
        """Return a layer of the rows `order`, int64 [rows]."""
        return replace(self, ints=self.ints[order], scales=self.scales[order], zeros=self.zeros[order])

    def dequantize(self) -> Tensor:
        """Return the weight, float32 [out, in].

        The result is exact: a difference of levels has at most 9 significant bits and a float16 scale 11, and float32
        has 24. The last group may be shorter than the others, as in files of other programs.
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
        """Return the weight for given `groups` of the inputs, int64 [in]; computed by slices of rows."""
        weight = self.ints.to(torch.float32)
        step = max(1, _SLICE // self.in_features)
        for start in range(0, self.out_features, step):
            rows = slice(start, start + step)
            weight[rows].sub_(self.zeros[rows].to(torch.float32)[:, groups])
            weight[rows].mul_(self.scales[rows].to(torch.float32)[:, groups])
        return weight


def natural_groups(scheme: LayerScheme, in_features: int) -> Tensor:
    """Return the `g_idx` of groups in natural order: int32 [in], k // group size for input k."""
    return torch.arange(in_features, dtype=torch.int32) // scheme.group_of(in_features)


def check_groups(name: str, scheme: LayerScheme, g_idx: Tensor, in_features: int) -> None:
    """Raise ValueError unless `g_idx` assigns each input to a valid group and the groups have the right sizes.

    GPTQ sorts the inputs and splits the sorted list into groups, so their sizes are those of the natural order.
    """
    if g_idx.dtype not in (torch.int32, torch.int64) or tuple(g_idx.shape) != (in_features,):
        raise ValueError(f"{name}: g_idx is not a list of {in_features} groups")
    expected = torch.bincount(natural_groups(scheme, in_features).to(g_idx.device))
    low, high = int(g_idx.min()), int(g_idx.max())
    if low < 0 or high >= len(expected):
        raise ValueError(f"{name}: g_idx contains the group {low if low < 0 else high} of {len(expected)}")
    if not torch.equal(torch.bincount(g_idx, minlength=len(expected)), expected):
        raise ValueError(f"{name}: g_idx does not divide the inputs into groups of {scheme.group_of(in_features)}")
