"""Search for the scales and zero points of groups, weighted by the mean square of each input.

Candidates shrink the range of a group; the one with the smallest weighted squared error is kept, and then improved by
the least-squares scale of its levels, weighted in the same way. Symmetric scales are tried with both signs, since the
range has one more level below zero than above. Zero points of asymmetric schemes are tried around that of the range
(NeUQI, arXiv 2505.17595, searches both as well).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from core.quant.grid import storable
from core.quant.start.block_scales import search_blocks
from core.quant.start.levels import Levels
from core.schemes import LayerScheme

_CHUNK = 1 << 16
"""Weights per chunk: its temporaries fit into the L2 cache of a CPU."""
_GPU_CHUNK = 1 << 24
_FACTORS = {2: (0.35, 24), 3: (0.45, 24), 4: (0.6, 24), 8: (0.95, 4)}
"""Bits -> smallest factor of the range, and number of factors."""
_LARGEST = 1.05
_FITS = 3
"""Number of least-squares fits of the best candidate."""


@torch.no_grad()
def search(weight: Tensor, scheme: LayerScheme, importance: Tensor | None, min_zero: int = 0) -> Levels:
    """Return the levels of rounding to nearest with searched scales.

    Args:
        weight: float32 [out, in].
        importance: mean square of each input, float32 [in]; None for equal weights.
        min_zero: smallest zero point that the output format can store.
    """
    if scheme.type:
        return search_blocks(weight, scheme, importance)
    out, width = weight.shape
    group = scheme.group_of(width)
    weigh = torch.ones(width, device=weight.device) if importance is None else importance.to(weight.device).float()
    # without the addition, weights of inputs that were always zero would be arbitrary
    weigh = (weigh + 0.01 * weigh.mean()).view(1, -1, group)
    if not bool(weigh.any()):
        weigh = torch.ones_like(weigh)
    step = max(1, (_CHUNK if weight.device.type == "cpu" else _GPU_CHUNK) // width)
    parts = [
        _search_rows(weight[first : first + step].view(-1, width // group, group), weigh, scheme, min_zero)
        for first in range(0, out, step)
    ]
    levels, scale, zero = (torch.cat(column) for column in zip(*parts, strict=True))
    return Levels(scheme, levels.view(out, width), scale, zero)


@dataclass
class _Best:
    """The best candidate of each group so far; error and numbers are [rows, groups, 1]."""

    error: Tensor
    scale: Tensor
    zero: Tensor


def _search_rows(weight: Tensor, weigh: Tensor, scheme: LayerScheme, min_zero: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return levels, scales and zero points of some rows [rows, groups, group]."""
    top, reach = scheme.levels - 1, scheme.reach
    low, high = weight.amin(-1, keepdim=True).clamp_(max=0), weight.amax(-1, keepdim=True).clamp_(min=0)
    best = _Best(torch.full_like(low, torch.inf), torch.ones_like(low), torch.zeros_like(low))
    ratio, level = torch.empty_like(weight), torch.empty_like(weight)

    def round_to(scale: Tensor, zero: Tensor) -> Tensor:
        """Return the levels minus the zero point."""
        torch.div(weight, scale, out=ratio)
        return torch.sub(torch.add(ratio, zero, out=level).round_().clamp_(0, top), zero, out=level)

    def consider(scale: Tensor, zero: Tensor) -> None:
        scale = storable(scale, reach)
        error = round_to(scale, zero).mul_(scale).sub_(weight).square_().mul_(weigh).sum(-1, keepdim=True)
        better = error < best.error
        best.error = torch.where(better, error, best.error)
        best.scale = torch.where(better, scale, best.scale)
        best.zero = torch.where(better, zero, best.zero)

    smallest, count = _FACTORS[scheme.bits]
    for factor in torch.linspace(smallest, _LARGEST, count).tolist():
        if scheme.sym:
            largest = torch.maximum(-low, high)
            half = torch.full_like(largest, float(reach))
            consider(largest * (factor / reach), half)
            consider(largest * (-factor / reach), half)
            continue
        scale = storable((high - low) * (factor / top), reach)
        middle = (-low * factor / scale).round_()
        shifts = (0,) if scheme.bits == 8 else (-1, 0, 1)
        for shift in shifts:
            consider(scale, (middle + shift).clamp_(min_zero, top))
    for _ in range(_FITS):
        level = round_to(best.scale, best.zero)
        weighted = level * weigh
        fitted = (weighted * weight).sum(-1, keepdim=True) / (weighted * level).sum(-1, keepdim=True)
        consider(torch.where(fitted.isfinite() & (fitted != 0), fitted, best.scale), best.zero)
    found = round_to(best.scale, best.zero) + best.zero
    return found.to(torch.uint8), best.scale.squeeze(-1), best.zero.squeeze(-1)
