"""The integer grid of one linear layer: scales, zero points, rounding, and their closed-form gradients.

The formulas are SignRound's (arXiv 2309.05516) with full-range symmetric scales: the larger end of a group maps
to the lowest level, so a scale may be negative. Scales are rounded to fp16, which is what the files store; all
arithmetic around them is fp32, gradients of the range factors included (in fp16 they underflow to zero).
Knows one layer and its state, not blocks or losses.

Shapes: a weight is [out, in], seen as [out, groups, group]; everything per group is [out, groups].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from core.formats.quantized import QuantizedLinear
from core.schemes import LayerScheme

SMALLEST_SCALE = 1e-5
_CPU_CHUNK = 1 << 16
"""Weights handled at once on a CPU: the dozen temporaries of a pass then stay in the L2 cache (at 3.5 M weights,
576 wide, measured 1.9 times faster than whole-matrix passes)."""
_GPU_CHUNK = 1 << 25


@dataclass
class Grid:
    """The tuning state of one layer.

    Attributes:
        weight: [out, in], the original in its own dtype; never changed.
        scheme: bits, group size, symmetry.
        offset: rounding offset V as an integer number of steps, int16 or int32 [out, in].
        unit: levels that one step of `offset` stands for.
        low, high: fp32, the smallest and largest weight of a group, at most and at least 0.
        low_factor, high_factor: fp32, what they are multiplied with; tuned.
        factor_limit: largest value of a factor: 1, or 2 where a searched scale is the start.
        searched: fp32 or None, a searched scale that replaces the ranges (symmetric only).
        min_zero: smallest zero point that the output format can store.
        scale, zero: fp32 holding fp16 values, and fp32 holding integers; follow from the factors.
    """

    weight: Tensor
    scheme: LayerScheme
    offset: Tensor
    unit: float
    low: Tensor
    high: Tensor
    low_factor: Tensor
    high_factor: Tensor
    factor_limit: float
    searched: Tensor | None
    min_zero: int
    scale: Tensor
    zero: Tensor

    @property
    def group(self) -> int:
        return self.scheme.group_of(self.weight.shape[1])

    @property
    def bounds(self) -> tuple[int, int]:
        """Lowest and highest integer level before the storage zero point is added (sym) or after (asym)."""
        half = self.scheme.levels // 2
        return (-half, half - 1) if self.scheme.sym else (0, self.scheme.levels - 1)

    def chunks(self) -> Iterator[slice]:
        """Slices of rows, each small enough for the fastest memory of the device."""
        out, width = self.weight.shape
        budget = _CPU_CHUNK if self.weight.device.type == "cpu" else _GPU_CHUNK
        rows = max(1, budget // width)
        return (slice(start, min(out, start + rows)) for start in range(0, out, rows))


def new_grid(
    weight: Tensor,
    scheme: LayerScheme,
    *,
    iterations: int = 0,
    rate: float = 0.0,
    min_zero: int = 0,
    searched: Tensor | None = None,
) -> Grid:
    """The grid of plain rounding: offset 0 and factors 1.

    Args:
        weight: [out, in]; `in` a multiple of the group size.
        iterations: steps to come; the offset lives on the grid of rate/iterations levels, exactly.
        rate: first step of the offset, in levels.
        searched: fp32 [out, groups], the scale to start from (symmetric schemes only).
    """
    out, width = weight.shape
    group = scheme.group_of(width)
    grouped = weight.view(out, -1, group)
    low = grouped.amin(-1).float().clamp(max=0)
    high = grouped.amax(-1).float().clamp(min=0)
    # The offset moves at most sum(1..T) steps: int16 holds that for T <= 255.
    integer = torch.int16 if iterations <= 255 else torch.int32
    grid = Grid(
        weight=weight,
        scheme=scheme,
        offset=torch.zeros(out, width, dtype=integer, device=weight.device),
        unit=rate / max(1, iterations),
        low=low,
        high=high,
        low_factor=torch.ones_like(low),
        high_factor=torch.ones_like(low),
        factor_limit=1.0 if searched is None else 2.0,
        searched=searched,
        min_zero=min_zero,
        scale=torch.empty_like(low),
        zero=torch.empty_like(low),
    )
    set_scales(grid, slice(None))
    return grid


def set_scales(grid: Grid, rows: slice) -> None:
    """Scales and zero points of some rows from their range factors (SignRound, eq. 3 and 4; full-range if symmetric)."""
    bits, levels = grid.scheme.bits, grid.scheme.levels
    if grid.scheme.sym:
        if grid.searched is not None:
            scale = grid.searched[rows] * grid.high_factor[rows]
        else:
            below, above = -grid.low[rows] * grid.low_factor[rows], grid.high[rows] * grid.high_factor[rows]
            scale = torch.where(above < below, below, -above) / (1 << (bits - 1))
        scale = scale.half().float()
        small = scale.abs() < SMALLEST_SCALE
        floor = torch.full_like(scale, SMALLEST_SCALE).half().float()
        grid.scale[rows] = torch.where(small, torch.where(scale < 0, -floor, floor), scale)
        grid.zero[rows] = 1 << (bits - 1)
    else:
        low, high = grid.low[rows] * grid.low_factor[rows], grid.high[rows] * grid.high_factor[rows]
        scale = ((high - low) / (levels - 1)).half().float()
        scale = scale.clamp(min=torch.tensor(SMALLEST_SCALE).half().item())
        grid.scale[rows] = scale
        grid.zero[rows] = (-low / scale).round().clamp(grid.min_zero, levels - 1)


def _levels(grid: Grid, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
    """(W/s, unclamped level, clamped level) of some rows, fp32 [rows, groups, group]."""
    count = grid.offset[rows].shape[0]
    scale = grid.scale[rows].unsqueeze(-1)
    ratio = grid.weight[rows].float().view(count, -1, grid.group) / scale
    raw = grid.offset[rows].float().view_as(ratio).mul_(grid.unit).add_(ratio).round_()
    if not grid.scheme.sym:
        raw.add_(grid.zero[rows].unsqueeze(-1))
    return ratio, raw, raw.clamp(*grid.bounds)


@torch.no_grad()
def quantize_into(grid: Grid, out: Tensor, rows: slice | None = None) -> None:
    """Write the dequantized weight, [out, in] in the dtype of `out`, for all rows or some."""
    for part in grid.chunks() if rows is None else (rows,):
        _, _, level = _levels(grid, part)
        if not grid.scheme.sym:
            level.sub_(grid.zero[part].unsqueeze(-1))
        out[part] = level.mul_(grid.scale[part].unsqueeze(-1)).view(out[part].shape)


@torch.no_grad()
def step(grid: Grid, gradient: Tensor, out: Tensor, steps: int, factor_step: float) -> None:
    """One SignSGD step of the offset and the factors, then the new dequantized weight into `out`.

    Args:
        gradient: dL/dW_q, [out, in], any float dtype; only its sign matters for the offset.
        out: where the layer's forward reads its weight, [out, in].
        steps: how many units the offset moves (T - i at iteration i of T: the linear decay).
        factor_step: how far the range factors move.
    """
    for rows in grid.chunks():
        _step_rows(grid, gradient[rows], rows, steps, factor_step)
        set_scales(grid, rows)
        quantize_into(grid, out, rows)


def _step_rows(grid: Grid, gradient: Tensor, rows: slice, steps: int, factor_step: float) -> None:
    ratio, raw, level = _levels(grid, rows)
    scale = grid.scale[rows]
    gradient = gradient.float().view_as(ratio)
    inside = raw.eq_(level)  # 1.0 where the level was not clamped
    through = inside.mul_(gradient)

    if factor_step:
        total = gradient.sum(-1)
        by_level = level.mul_(gradient).sum(-1)
        by_ratio = ratio.mul_(through).sum(-1)
        d_low, d_high = _factor_gradients(grid, rows, total, by_level, by_ratio, through.sum(-1))
        for factor, slope in ((grid.low_factor, d_low), (grid.high_factor, d_high)):
            if slope is not None:
                factor[rows] = (factor[rows] - slope.sign() * factor_step).clamp_(0.0, grid.factor_limit)
    # dL/dV = G m s for both kinds of grid; SignSGD takes its sign. (zero is constant in V.)
    moves = through.sign_().mul_(scale.sign().unsqueeze(-1) * steps)
    grid.offset[rows] -= moves.view(grid.offset[rows].shape).to(grid.offset.dtype)


def _factor_gradients(
    grid: Grid, rows: slice, total: Tensor, by_level: Tensor, by_ratio: Tensor, through: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """dL/d low_factor and dL/d high_factor, fp32 [rows, groups].

    Args:
        total, by_level, by_ratio, through: sums over a group of G, G q, G m W/s and G m.
    """
    scale, low, high = grid.scale[rows], grid.low[rows], grid.high[rows]
    if grid.scheme.sym:
        half = 1 << (grid.scheme.bits - 1)
        d_scale = by_level - by_ratio
        if grid.searched is not None:
            return None, d_scale * grid.searched[rows]
        below, above = -low * grid.low_factor[rows], high * grid.high_factor[rows]
        low_leads = above < below
        none = torch.zeros_like(d_scale)
        return torch.where(low_leads, -d_scale * low / half, none), torch.where(low_leads, none, -d_scale * high / half)
    top = grid.scheme.levels - 1
    d_zero = scale * (through - total)
    d_scale = by_level - grid.zero[rows] * total - by_ratio + d_zero * low * grid.low_factor[rows] / scale.square()
    return (-d_scale / top - d_zero / scale) * low, d_scale / top * high


@torch.no_grad()
def freeze(grid: Grid, name: str) -> QuantizedLinear:
    """The integers that the grid stands for now: what goes to disk, never derived from a dequantized weight."""
    out, width = grid.weight.shape
    integers = torch.empty(out, width, dtype=torch.uint8, device=grid.weight.device)
    shift = grid.scheme.levels // 2 if grid.scheme.sym else 0
    for rows in grid.chunks():
        _, _, level = _levels(grid, rows)
        integers[rows] = level.add_(shift).view(-1, width).to(torch.uint8)
    return QuantizedLinear(
        name=name,
        scheme=grid.scheme,
        ints=integers.cpu(),
        scales=grid.scale.half().cpu(),
        zeros=grid.zero.to(torch.uint8).cpu(),
    )
