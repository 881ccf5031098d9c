"""Search for the scales of symmetric layers with 2, 3 or 4 bits (opt-RTN).

For each group, candidates around the scale of its largest weight are tried; the one with the smallest squared error,
weighted by the mean square of each input over the calibration text, is kept.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.quant.grid import storable
from core.schemes import LayerScheme


def searchable(scheme: LayerScheme) -> bool:
    """Return whether a scheme supports the search.

    With 8 bits the search gains nothing, asymmetric ranges have two ends, and block types have a search of their own.
    """
    return scheme.sym and scheme.bits <= 4 and not scheme.type


def _ends(bits: int) -> list[float]:
    """Return the levels to which the largest weight of a group is mapped: candidates around 2^(bits - 1)."""
    half = float(1 << (bits - 1))
    if bits == 2:
        return [half + 0.01 * k for k in range(-90, 91)]
    return [half + 0.75 * half * k / 100 for k in range(-100, 101)]


@torch.no_grad()
def search_scale(weight: Tensor, scheme: LayerScheme, importance: Tensor | None) -> Tensor:
    """Return the scales with the smallest weighted squared error, float32 [out, groups].

    Args:
        weight: [out, in].
        importance: mean square of each input over the calibration text, float32 [in]; None for equal weights.
    """
    out, width = weight.shape
    group = scheme.group_of(width)
    half = scheme.levels // 2
    best_scale = torch.empty(out, width // group, device=weight.device)
    weigh = None if importance is None else importance.to(weight.device).float().view(1, -1, group)
    rows = max(1, (1 << 18) // width)
    for start in range(0, out, rows):
        part = weight[start : start + rows].float().view(-1, width // group, group)
        largest = part.gather(-1, part.abs().argmax(-1, keepdim=True)).squeeze(-1)
        least = torch.full_like(largest, torch.inf)
        kept = torch.zeros_like(largest)
        for end in _ends(scheme.bits):
            scale = storable(-largest / end, half)
            step = scale.unsqueeze(-1)
            error = (part / step).round_().clamp_(-half, half - 1).mul_(step).sub_(part).square_()
            if weigh is not None:
                error.mul_(weigh)
            error = error.sum(-1)
            better = error < least
            least = torch.where(better, error, least)
            kept = torch.where(better, scale, kept)
        best_scale[start : start + rows] = kept
    return best_scale
