"""The integer grid of one linear layer: scales, zero points, rounding offsets, and their gradients in closed form.

The formulas are those of SignRound (arXiv 2309.05516) with full-range symmetric scales: the end of a group with the
larger magnitude maps to the lowest level, so a scale may be negative. Scales are rounded to float16, the dtype of the
files; all arithmetic is float32, including the gradients of the range factors, which underflow to zero in float16.
A scheme with a block type has the scales of that type instead (`core.quant.typed_grid`), which are not tuned; the
rounding offsets are tuned in the same way.

Shapes: a weight is [out, in], viewed as [out, groups, group]; values per group are [out, groups].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from core.formats.gguf.blocks import BlockScales
from core.formats.gguf.code_books import code_values, decoded, positions
from core.formats.quantized import QuantizedLinear
from core.formats.stored import StoredLayer
from core.quant.device_kernels import kernels_for
from core.quant.typed_grid import nonzero_scales
from core.schemes import LayerScheme

SMALLEST_SCALE = 2.0**-24
LARGEST_SCALE = 65504.0
"""Smallest and largest positive float16, the limits of stored scales. A norm before a layer can make its weights so
small that a larger minimum would leave them few levels (intel/auto-round#619)."""
_CPU_CHUNK = 1 << 16
"""Weights per chunk on a CPU: the temporaries of a pass then fit into the L2 cache (1.9 times as fast as passes over
the whole matrix, measured with 3.5 M weights in rows of 576)."""
_GPU_CHUNK = 1 << 25


@dataclass
class Grid:
    """The tuning state of one layer.

    Attributes:
        weight: [out, in], the original weight in its own dtype; not modified.
        scheme: bits, group size, symmetry.
        offset: rounding offset V as an integer number of units, int16 or int32 [out, in].
        unit: levels per unit of `offset`.
        low, high: float32, smallest and largest weight of a group, clamped to <= 0 and >= 0; empty with a block type.
        min_scale, max_scale: float32, tuned factors of `low` and `high`.
        factor_limit: maximum of the factors: 1, or 2 with a searched scale.
        searched: float32 or None, a searched scale that replaces the ranges (symmetric only).
        min_zero: smallest zero point that the output format can store.
        scale, zero: float32 with float16 values, and float32 with integers; computed from the factors. With a block
            type: its scales, and empty.
        shift: added to a level before it is clamped: the zero point, or 0 if symmetric (the stored zero point is then
            a constant).
        base: float32, value of level 0, for block types with minimums; None for 0.
        numbers: stored scales of the block type, or None.
        compiled: use the compiled kernels of the device, if it has any, instead of torch operations.
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
    numbers: BlockScales | None
    compiled: bool

    @property
    def group(self) -> int:
        """Weights per group."""
        return self.scheme.group_of(self.weight.shape[1])

    @property
    def bounds(self) -> tuple[int, int]:
        """Lowest and highest level: before the stored zero point is added (symmetric) or after it is (asymmetric).

        Levels of a code book are its indices.
        """
        half = self.scheme.levels // 2
        around = self.scheme.sym and not self.scheme.code_book
        return (-half, half - 1) if around else (0, self.scheme.levels - 1)

    @property
    def codes(self) -> Tensor | None:
        """Values of the levels of a code book, float32 [2^bits]; None without one."""
        return code_values(self.scheme.type) if self.scheme.code_book else None

    def chunks(self) -> Iterator[slice]:
        """Return slices of rows whose temporaries fit into the cache of the device."""
        out, width = self.weight.shape
        budget = _CPU_CHUNK if self.weight.device.type == "cpu" else _GPU_CHUNK
        rows = max(1, budget // width)
        return (slice(start, min(out, start + rows)) for start in range(0, out, rows))

    def set_scales(self) -> None:
        """Compute scales and zero points from the range factors (SignRound, eq. 3 and 4; full-range if symmetric).

        s = (max - min) / (2^b - 1), z = round(-min / s). The scales of a block type do not change.
        """
        if self.numbers is not None:
            return
        if self.scheme.sym:
            if self.searched is not None:
                scale = self.searched * self.max_scale
            else:
                below, above = -self.low * self.min_scale, self.high * self.max_scale
                scale = torch.where(above < below, below, -above) / (1 << (self.scheme.bits - 1))
            scale = storable(scale, self.scheme.reach)
        else:
            low, high = self.low * self.min_scale, self.high * self.max_scale
            scale = storable((high - low) / (self.scheme.levels - 1), self.scheme.reach)
            self.zero.copy_((-low / scale).round().clamp(self.min_zero, self.scheme.levels - 1))
            self.shift.copy_(self.zero)
        self.scale.copy_(scale)

    def _levels(self, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Return (W - base) / s, the levels and the clamped levels of some rows, float32 [rows, groups, group].

        SignRound, eq. 1: q = clamp(round(W / s + V) + z). With a code book, W / s is replaced by its position between
        the levels, so that V is a number of levels there as well.
        """
        count = self.offset[rows].shape[0]
        scale = self.scale[rows].unsqueeze(-1)
        weight = self.weight[rows].float().view(count, -1, self.group)
        ratio = (weight if self.base is None else weight - self.base[rows].unsqueeze(-1)) / scale
        if self.scheme.code_book:
            ratio = positions(ratio, self.scheme.type)
        raw = self.offset[rows].float().view_as(ratio).mul_(self.unit).add_(ratio).round_()
        raw.add_(self.shift[rows].unsqueeze(-1))
        return ratio, raw, raw.clamp(*self.bounds)

    @torch.no_grad()
    def quantize_into(self, out: Tensor) -> None:
        """Write the dequantized weight (q - z) s + base, [out, in], in the dtype of `out`."""
        kernels = kernels_for(self.weight, self.codes) if self.compiled else None
        if kernels is not None:
            kernels.quantize(
                self.weight, self.offset, self.scale, self.shift, self.base, self.unit, self.bounds, out, self.codes
            )
            return
        for rows in self.chunks():
            _, _, level = self._levels(rows)
            if self.scheme.code_book:
                level = decoded(level, self.scheme.type)
            level.sub_(self.shift[rows].unsqueeze(-1)).mul_(self.scale[rows].unsqueeze(-1))
            if self.base is not None:
                level.add_(self.base[rows].unsqueeze(-1))
            out[rows] = level.view(out[rows].shape)

    @torch.no_grad()
    def step(self, gradient: Tensor, out: Tensor, steps: int, factor_step: float) -> None:
        """Apply one SignSGD step to the offset and the factors, and write the new dequantized weight into `out`.

        Args:
            gradient: dL/dW_q, [out, in], float32 or bfloat16; only its sign matters for the offset.
            out: the weight of the layer's forward pass, [out, in].
            steps: units by which the offset moves (T - i at iteration i of T, a linear decay).
            factor_step: step size of the range factors; unused with a block type.
        """
        kernels = kernels_for(self.weight, self.codes) if self.compiled else None
        if kernels is not None:
            sums = kernels.step(
                self.weight,
                gradient,
                self.offset,
                self.scale,
                self.shift,
                self.base,
                self.unit,
                steps,
                self.bounds,
                self.codes,
            )
        else:
            sums = torch.empty(4, *self.scale.shape, device=self.scale.device)
            for rows in self.chunks():
                sums[:, rows] = self._step_rows(gradient[rows], rows, steps)
        if factor_step and self.numbers is None:
            self._step_factors(sums, factor_step)
            self.set_scales()
        self.quantize_into(out)

    def _step_rows(self, gradient: Tensor, rows: slice, steps: int) -> Tensor:
        """Move the offsets of some rows; return the sums over each group of G, G q, G m W/s and G m.

        G is dL/dW_q; m is 1 where the level was not clamped, else 0. The sums are float32 [4, rows, groups].
        """
        ratio, raw, level = self._levels(rows)
        gradient = gradient.float().view_as(ratio)
        through = raw.eq_(level).mul_(gradient)  # G where the level was not clamped
        sums = torch.stack([part.sum(-1) for part in (gradient, level.mul_(gradient), ratio.mul_(through), through)])
        # dL/dV = G m s, symmetric or not; SignSGD uses its sign.
        moves = through.sign_().mul_(self.scale[rows].sign().unsqueeze(-1) * steps)
        self.offset[rows] -= moves.view(self.offset[rows].shape).to(self.offset.dtype)
        return sums

    def _step_factors(self, sums: Tensor, size: float) -> None:
        """Move the range factors against the signs of their gradients, all float32 [out, groups].

        Args:
            sums: over each group of G, G q, G m W/s and G m, from `_step_rows`.
        """
        total, by_level, by_ratio, through = sums
        scale, low, high = self.scale, self.low, self.high
        slopes: list[tuple[Tensor, Tensor]] = []
        if self.scheme.sym:
            d_scale = by_level - by_ratio
            if self.searched is not None:
                slopes.append((self.max_scale, d_scale * self.searched))
            else:
                half = 1 << (self.scheme.bits - 1)
                low_leads = high * self.max_scale < -low * self.min_scale
                slopes.append((self.min_scale, torch.where(low_leads, -d_scale * low / half, 0.0)))
                slopes.append((self.max_scale, torch.where(low_leads, 0.0, -d_scale * high / half)))
        else:
            top = self.scheme.levels - 1
            d_zero = scale * (through - total)
            d_scale = by_level - self.zero * total - by_ratio + d_zero * low * self.min_scale / scale.square()
            slopes.append((self.min_scale, (-d_scale / top - d_zero / scale) * low))
            slopes.append((self.max_scale, d_scale / top * high))
        for factor, slope in slopes:
            factor.sub_(slope.sign_().mul_(size)).clamp_(0.0, self.factor_limit)

    @torch.no_grad()
    def freeze(self, name: str) -> StoredLayer:
        """Return the quantized layer with the present integers, which are not derived from a dequantized weight."""
        out, width = self.weight.shape
        integers = torch.empty(out, width, dtype=torch.uint8, device=self.weight.device)
        shift = -self.bounds[0]
        for rows in self.chunks():
            _, _, level = self._levels(rows)
            integers[rows] = level.add_(shift).view(-1, width).to(torch.uint8)
        return self.stored(name, integers)

    def stored(self, name: str, integers: Tensor) -> StoredLayer:
        """Return a quantized layer with the present scales of the grid and the given integers.

        Args:
            integers: uint8 [out, in], stored levels; 0 is the lowest.
        """
        if self.numbers is not None:
            return self.numbers.layer(name, self.scheme, integers)
        return QuantizedLinear(
            name=name,
            scheme=self.scheme,
            ints=integers.cpu(),
            scales=self.scale.half().cpu(),
            zeros=self.zero.to(torch.uint8).cpu(),
        )

    def part(self, rows: slice) -> Grid:
        """Return a grid of some rows that shares memory with this one."""

        def some(value: Tensor | None) -> Tensor | None:
            return value if value is None or not value.numel() else value[rows]

        names = ("weight", "offset", "low", "high", "min_scale", "max_scale", "searched", "scale", "zero", "shift")
        values: dict[str, Any] = {name: some(getattr(self, name)) for name in (*names, "base")}
        return replace(self, **values)

    @property
    def divisible(self) -> bool:
        """True if parts of the grid can be stepped separately."""
        return self.numbers is None

    @property
    def started(self) -> bool:
        """True if the grid begins with the levels of a start."""
        return False

    def state(self) -> tuple[Tensor, ...]:
        """Return copies of the offset and the range factors."""
        return (self.offset.clone(), self.min_scale.clone(), self.max_scale.clone())

    def restore(self, state: tuple[Tensor, ...]) -> None:
        """Set the offset and the range factors to those of `state`."""
        self.offset, self.min_scale, self.max_scale = state
        self.set_scales()


def new_grid(
    weight: Tensor,
    scheme: LayerScheme,
    *,
    iterations: int = 0,
    rate: float = 0.0,
    min_zero: int = 0,
    searched: Tensor | None = None,
    importance: Tensor | None = None,
    compiled: bool = True,
) -> Grid:
    """Return the grid of plain rounding (RTN): offset 0 and factors 1.

    Args:
        weight: [out, in]; `in` a multiple of the group size, or of the block.
        iterations: number of SignSGD steps; the offset is a multiple of rate / iterations levels.
        rate: learning rate of the offset at the first step, in levels.
        searched: float32 [out, groups], initial scale (symmetric schemes without a block type only).
        importance: mean square of each input, float32 [in]; weights the search for the scales of a block type.
        compiled: use the compiled kernels of the device, if it has any.
    """
    out, width = weight.shape
    group = scheme.group_of(width)
    on_cpu = weight.device.type == "cpu"
    if on_cpu and weight.dtype not in (torch.bfloat16, torch.float32):
        weight = weight.float()  # the compiled loops support bfloat16 and float32 only
    numbers = nonzero_scales(weight, scheme.type, importance) if scheme.type else None
    if numbers is None:
        low, high = _ends(weight, group)
        scale, base = torch.empty_like(low), None
    else:
        low = high = torch.empty(0)
        scale, base = numbers.steps()
    # The offset moves by at most T + (T - 1) + ... + 1 units, which fits into int16 for T <= 255.
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
        compiled=compiled,
    )
    grid.set_scales()
    return grid


def _ends(weight: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """Return the smallest and largest weight of each group, clamped to <= 0 and >= 0; float32 [out, groups]."""
    grouped = weight.view(len(weight), -1, group)
    return grouped.amin(-1).float().clamp(max=0), grouped.amax(-1).float().clamp(min=0)


def storable(scale: Tensor, reach: int) -> Tensor:
    """Round scales to nonzero float16 values, returned as float32; signs are kept.

    Rounds to nearest, except where float16 is so coarse (below 2^-14) that the end of the range would be clipped by
    more than half a level: there, to the next larger magnitude.

    Args:
        scale: float32 of any shape.
        reach: levels from 0 to the farther end of the range.
    """
    size = scale.abs().clamp(max=LARGEST_SCALE)
    nearest = size.half().float()
    missing = (size - nearest) * reach > 0.5 * nearest
    nearest = torch.where(missing, nearest + SMALLEST_SCALE, nearest).clamp_(min=SMALLEST_SCALE)
    return torch.where(scale < 0, -nearest, nearest)
