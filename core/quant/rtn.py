"""Scales found by search instead of tuning (opt-RTN), for symmetric 2, 3 and 4 bits.

For every group, candidates around the scale of its largest weight are tried and the one with the least squared
error, weighted by how strongly the calibration text drives each input, is kept. Knows one layer at a time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.quant.grid import storable
from core.schemes import LayerScheme


def searchable(scheme: LayerScheme) -> bool:
    """Whether this search helps a scheme.

    At 8 bits it gains nothing, asymmetric ranges have no single end to move, block types have their own.
    """
    return scheme.sym and scheme.bits <= 4 and not scheme.type


def _ends(bits: int) -> list[float]:
    """Candidate places, in levels, for the largest weight of a group: around 2^(bits-1)."""
    half = float(1 << (bits - 1))
    if bits == 2:
        return [half + 0.01 * k for k in range(-90, 91)]
    return [half + 0.75 * half * k / 100 for k in range(-100, 101)]


@torch.no_grad()
def search_scale(weight: Tensor, scheme: LayerScheme, importance: Tensor | None, *, every: int = 1) -> Tensor:
    """The scale of least weighted squared error, fp32 [out, groups].

    Args:
        weight: [out, in].
        importance: mean square of every input over the calibration text, fp32 [in]; None weighs all alike.
        every: try only each so manyth candidate.
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
        for end in _ends(scheme.bits)[::every]:
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
