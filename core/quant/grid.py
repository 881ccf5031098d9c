"""The integer grid of one linear layer: scales, zero points, rounding, and their closed-form gradients.

The formulas are SignRound's (arXiv 2309.05516) with full-range symmetric scales: the larger end of a group maps
to the lowest level, so a scale may be negative. Scales are rounded to fp16, which is what the files store; all
arithmetic around them is fp32, gradients of the range factors included (in fp16 they underflow to zero).
A scheme with a block type has that type's own steps instead (`core.quant.typed_grid`), which no step moves; offsets and
rounding are alike.
Knows one layer and its state, not blocks or losses.

Shapes: a weight is [out, in], seen as [out, groups, group]; everything per group is [out, groups].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from core.formats.gguf.rounding import Start
from core.formats.quantized import QuantizedLinear
from core.formats.stored import StoredLayer
from core.quant import kernels, typed_grid
from core.schemes import LayerScheme

SMALLEST_SCALE = 2.0**-24
LARGEST_SCALE = 65504.0
"""The smallest and the largest float16 above 0: what the files can hold. Norms in front of a layer can make its weights
so small that a larger floor takes most of their levels (intel/auto-round#619)."""
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
        low, high: fp32, the smallest and largest weight of a group, at most and at least 0; empty with a block type.
        min_scale, max_scale: fp32, what they are multiplied with; tuned.
        factor_limit: largest value of a factor: 1, or 2 where a searched scale is the start.
        searched: fp32 or None, a searched scale that replaces the ranges (symmetric only).
        min_zero: smallest zero point that the output format can store.
        scale, zero: fp32 holding fp16 values, and fp32 holding integers; follow from the factors. Of a block type: its
            steps, and empty.
        shift: what is added to a level before it is clamped: the zero point, or 0 where symmetric (the zero point
            is then a constant of storage).
        base: fp32, what level 0 is worth, of block types with minimums; else None, for 0.
        numbers: what the block type stores of its scales, or None.
        compiled: use the compiled loops (CPU) instead of the portable path.
    """

    weight: Tensor
    scheme: LayerScheme
    offset: Tensor
    unit: float
    low: Tensor
    high: Tensor
    min_scale: Tensor
    max_scale: Tensor
    factor_limit: float
    searched: Tensor | None
    min_zero: int
    scale: Tensor
    zero: Tensor
    shift: Tensor
    base: Tensor | None
    numbers: Start | None
    compiled: bool

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
    importance: Tensor | None = None,
    compiled: bool | None = None,
) -> Grid:
    """The grid of plain rounding: offset 0 and factors 1.

    Args:
        weight: [out, in]; `in` a multiple of the group size, or of the block.
        iterations: steps to come; the offset lives on the grid of rate/iterations levels, exactly.
        rate: first step of the offset, in levels.
        searched: fp32 [out, groups], the scale to start from (symmetric schemes without a block type only).
        importance: mean square of every input, fp32 [in], which leads the search for the numbers of a block type.
        compiled: by default, where the weight lies on a CPU.
    """
    out, width = weight.shape
    group = scheme.group_of(width)
    on_cpu = weight.device.type == "cpu"
    if on_cpu and weight.dtype not in (torch.bfloat16, torch.float32):
        weight = weight.float()  # fp16 and fp64 are not what the compiled loops read
    numbers = typed_grid.begin(weight, scheme.type, importance) if scheme.type else None
    if numbers is None:
        low, high = _ends(weight, group)
        scale, base = torch.empty_like(low), None
    else:
        low = high = torch.empty(0)
        scale, base = typed_grid.steps(numbers)
    # The offset moves at most sum(1..T) steps: int16 holds that for T <= 255.
    integer = torch.int16 if iterations <= 255 else torch.int32
    grid = Grid(
        weight=weight,
        scheme=scheme,
        offset=torch.zeros(out, width, dtype=integer, device=weight.device),
        unit=rate / max(1, iterations),
        low=low,
        high=high,
        min_scale=torch.ones_like(low),
        max_scale=torch.ones_like(low),
        factor_limit=1.0 if searched is None else 2.0,
        searched=searched,
        min_zero=min_zero,
        scale=scale,
        zero=torch.full_like(low, scheme.levels // 2),
        shift=torch.zeros_like(scale),
        base=base,
        numbers=numbers,
        compiled=on_cpu if compiled is None else compiled,
    )
    set_scales(grid)
    return grid


def _ends(weight: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """The smallest and largest weight of every group, at most and at least 0; fp32 [out, groups]."""
    grouped = weight.view(len(weight), -1, group)
    return grouped.amin(-1).float().clamp(max=0), grouped.amax(-1).float().clamp(min=0)


def set_scales(grid: Grid) -> None:
    """Scales and zero points from the range factors (SignRound, eq. 3 and 4; full-range if symmetric).

    Those of a block type are what they are.
    """
    if grid.numbers is not None:
        return
    if grid.scheme.sym:
        if grid.searched is not None:
            scale = grid.searched * grid.max_scale
        else:
            below, above = -grid.low * grid.min_scale, grid.high * grid.max_scale
            scale = torch.where(above < below, below, -above) / (1 << (grid.scheme.bits - 1))
        scale = storable(scale, 1 << (grid.scheme.bits - 1))
    else:
        low, high = grid.low * grid.min_scale, grid.high * grid.max_scale
        scale = storable((high - low) / (grid.scheme.levels - 1), grid.scheme.levels - 1)
        grid.zero.copy_((-low / scale).round().clamp(grid.min_zero, grid.scheme.levels - 1))
        grid.shift.copy_(grid.zero)
    grid.scale.copy_(scale)


def storable(scale: Tensor, reach: int) -> Tensor:
    """Return the float16 values, as fp32, that stand for scales; none is 0, and signs are kept.

    The nearest one, but where float16 is so coarse (below 2^-14) that the ends of the range would be cut off by more
    than half a level: then the next larger one.

    Args:
        scale: fp32, any shape.
        reach: levels from 0 to the farther end of the range.
    """
    size = scale.abs().clamp(max=LARGEST_SCALE)
    nearest = size.half().float()
    missing = (size - nearest) * reach > 0.5 * nearest
    nearest = torch.where(missing, nearest + SMALLEST_SCALE, nearest).clamp_(min=SMALLEST_SCALE)
    return torch.where(scale < 0, -nearest, nearest)


def _levels(grid: Grid, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
    """(W/s, unclamped level, clamped level) of some rows, fp32 [rows, groups, group]; W above its base."""
    count = grid.offset[rows].shape[0]
    scale = grid.scale[rows].unsqueeze(-1)
    weight = grid.weight[rows].float().view(count, -1, grid.group)
    ratio = (weight if grid.base is None else weight - grid.base[rows].unsqueeze(-1)) / scale
    raw = grid.offset[rows].float().view_as(ratio).mul_(grid.unit).add_(ratio).round_()
    raw.add_(grid.shift[rows].unsqueeze(-1))
    return ratio, raw, raw.clamp(*grid.bounds)


@torch.no_grad()
def quantize_into(grid: Grid, out: Tensor) -> None:
    """Write the dequantized weight, [out, in], in the dtype of `out`."""
    if grid.compiled:
        exact = out if out.dtype == torch.float32 else torch.empty(out.shape)
        kernels.quantize(grid.weight, grid.offset, grid.scale, grid.shift, grid.base, grid.unit, grid.bounds, exact)
        if exact is not out:
            out.copy_(exact)
        return
    for rows in grid.chunks():
        _, _, level = _levels(grid, rows)
        level.sub_(grid.shift[rows].unsqueeze(-1)).mul_(grid.scale[rows].unsqueeze(-1))
        if grid.base is not None:
            level.add_(grid.base[rows].unsqueeze(-1))
        out[rows] = level.view(out[rows].shape)


@torch.no_grad()
def step(grid: Grid, gradient: Tensor, out: Tensor, steps: int, factor_step: float) -> None:
    """One SignSGD step of the offset and the factors, then the new dequantized weight into `out`.

    Args:
        gradient: dL/dW_q, [out, in], float32 or bfloat16; only its sign matters for the offset.
        out: where the layer's forward reads its weight, [out, in].
        steps: how many units the offset moves (T - i at iteration i of T: the linear decay).
        factor_step: how far the range factors move; a block type has none.
    """
    if grid.compiled:
        sums = kernels.step(
            grid.weight, gradient, grid.offset, grid.scale, grid.shift, grid.base, grid.unit, steps, grid.bounds
        )
    else:
        sums = torch.empty(4, *grid.scale.shape, device=grid.scale.device)
        for rows in grid.chunks():
            sums[:, rows] = _step_rows(grid, gradient[rows], rows, steps)
    if factor_step and grid.numbers is None:
        _step_factors(grid, sums, factor_step)
        set_scales(grid)
    quantize_into(grid, out)


def _step_rows(grid: Grid, gradient: Tensor, rows: slice, steps: int) -> Tensor:
    """Move the offsets of some rows; sums over each group of G, G q, G m W/s and G m, fp32 [4, rows, groups]."""
    ratio, raw, level = _levels(grid, rows)
    gradient = gradient.float().view_as(ratio)
    through = raw.eq_(level).mul_(gradient)  # G where the level was not clamped
    sums = torch.stack([part.sum(-1) for part in (gradient, level.mul_(gradient), ratio.mul_(through), through)])
    # dL/dV = G m s for both kinds of grid; SignSGD takes its sign.
    moves = through.sign_().mul_(grid.scale[rows].sign().unsqueeze(-1) * steps)
    grid.offset[rows] -= moves.view(grid.offset[rows].shape).to(grid.offset.dtype)
    return sums


def _step_factors(grid: Grid, sums: Tensor, size: float) -> None:
    """Move the range factors against the signs of their gradients, all fp32 [out, groups].

    Args:
        sums: over each group of G, G q, G m W/s and G m, where m tells that a level was not clamped.
    """
    total, by_level, by_ratio, through = sums
    scale, low, high = grid.scale, grid.low, grid.high
    slopes: list[tuple[Tensor, Tensor]] = []
    if grid.scheme.sym:
        d_scale = by_level - by_ratio
        if grid.searched is not None:
            slopes.append((grid.max_scale, d_scale * grid.searched))
        else:
            half = 1 << (grid.scheme.bits - 1)
            low_leads = high * grid.max_scale < -low * grid.min_scale
            slopes.append((grid.min_scale, torch.where(low_leads, -d_scale * low / half, 0.0)))
            slopes.append((grid.max_scale, torch.where(low_leads, 0.0, -d_scale * high / half)))
    else:
        top = grid.scheme.levels - 1
        d_zero = scale * (through - total)
        d_scale = by_level - grid.zero * total - by_ratio + d_zero * low * grid.min_scale / scale.square()
        slopes.append((grid.min_scale, (-d_scale / top - d_zero / scale) * low))
        slopes.append((grid.max_scale, d_scale / top * high))
    for factor, slope in slopes:
        factor.sub_(slope.sign_().mul_(size)).clamp_(0.0, grid.factor_limit)


@torch.no_grad()
def freeze(grid: Grid, name: str) -> StoredLayer:
    """The integers that the grid stands for now: what goes to disk, never derived from a dequantized weight."""
    out, width = grid.weight.shape
    integers = torch.empty(out, width, dtype=torch.uint8, device=grid.weight.device)
    shift = grid.scheme.levels // 2 if grid.scheme.sym else 0
    for rows in grid.chunks():
        _, _, level = _levels(grid, rows)
        integers[rows] = level.add_(shift).view(-1, width).to(torch.uint8)
    return stored(grid, name, integers)


def stored(grid: Grid, name: str, integers: Tensor) -> StoredLayer:
    """A layer of the grid's scales as they are now, and of integers chosen elsewhere.

    Args:
        integers: uint8 [out, in], levels as they are stored: 0 is the lowest.
    """
    if grid.numbers is not None:
        return typed_grid.layer(name, grid.scheme, integers.cpu(), grid.numbers)
    return QuantizedLinear(
        name=name,
        scheme=grid.scheme,
        ints=integers.cpu(),
        scales=grid.scale.half().cpu(),
        zeros=grid.zero.to(torch.uint8).cpu(),
    )
