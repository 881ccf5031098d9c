"""A grid whose integers and scales are both learned, from the levels and scales of a start.

Each weight has a latent level, a number that moves by signed steps and is rounded to the level of the weight in every
pass (straight-through estimation). In `core.quant.grid` the level depends on the ratio of the weight and its scale;
here it does not depend on the scale, so a step of a scale moves no level. Block types of GGUF keep their integers.

A latent level starts at the position of the original weight on the scale, but at most `BOUND` levels from the level
of the start, which error feedback has chosen with regard to all other weights. So levels near the middle between two
are the first to move.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from core.formats.stored import StoredLayer
from core.quant import kernels
from core.quant.device_kernels import fused_for, kernels_for
from core.quant.level_grid import LevelGrid, level_grid
from core.quant.start.levels import Levels, row_chunks

LEARNED_BITS = (2, 3)
"""Widths whose integers are learned. At 4 bits, errors were up to a sixth larger than with scales alone."""
BOUND = 0.45
"""Largest distance of a latent level from the level of the start."""


def unit_bits(bits: int) -> int:
    """Return the number of binary digits after the point of a latent level, with which all of them fit into int16."""
    return 15 - bits


@dataclass
class LatentGrid:
    """The tuning state of one layer with learned integers.

    Attributes:
        latent: int16 [out, in], latent levels as multiples of 2^-(15 - bits).
        unit_step: number of these multiples by which a latent level moves per unit of `steps`.
        scales: start and factors of the scales; the levels in it are those of the start.
    """

    latent: Tensor
    unit_step: float
    scales: LevelGrid

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest latent level as multiples: just within half a level of the lowest and highest level."""
        bits = self.scales.start.scheme.bits
        half = (1 << unit_bits(bits)) // 2
        return -half + 1, (((1 << bits) - 1) << unit_bits(bits)) + half - 1

    def levels(self, rows: slice = slice(None)) -> Tensor:
        """Return the present levels, uint8 [rows, in]."""
        digits = unit_bits(self.scales.start.scheme.bits)
        half = (1 << digits) // 2
        return self.latent[rows].int().add_(half).bitwise_right_shift_(digits).to(torch.uint8)

    def settled(self) -> LevelGrid:
        """Return a grid with the present integers, which are fixed, and the present scales."""
        levels = torch.empty(self.latent.shape, dtype=torch.uint8, device=self.latent.device)
        for rows in row_chunks(*self.latent.shape):
            levels[rows] = self.levels(rows)
        return self.scales.with_stored_levels(levels)

    @torch.no_grad()
    def quantize_into(self, out: Tensor) -> None:
        """Write the dequantized weight (q - z) s, [out, in], in the dtype of `out`."""
        scale, zero = self.scales.scale, self.scales.start.zero
        compiled = kernels_for(scale)
        if compiled is not None:
            compiled.dequantize(self.latent, scale, zero, None, out, unit_bits(self.scales.start.scheme.bits))
            return
        for rows in row_chunks(*self.latent.shape):
            start = self.scales.start
            out[rows] = Levels(start.scheme, self.levels(rows), scale[rows], zero[rows]).values()

    @torch.no_grad()
    def step(self, gradient: Tensor, out: Tensor, steps: int, factor_step: float) -> None:
        """Apply one SignSGD step of latent levels and factors, and write the new dequantized weight into `out`.

        Args:
            gradient: dL/dW_q, [out, in], float32 or bfloat16.
            steps: units by which the latent levels move.
            factor_step: step size of the factors.
        """
        grid, size, fused = self.scales, round(steps * self.unit_step), fused_for(self.latent)
        start = grid.start
        if fused is not None:
            scales = (start.zero, start.scale, grid.factor, grid.scale)
            latent = (unit_bits(start.scheme.bits), size, self.limits)
            fused.step_levels(self.latent, gradient, *scales, out, factor_step, start.scheme.reach, latent)
            return
        slopes = self._move(gradient, size).mul_(start.scale)
        grid.factor.sub_(slopes.sign_().mul_(factor_step))
        grid.set_scales()
        self.quantize_into(out)

    def _move(self, gradient: Tensor, size: int) -> Tensor:
        """Move the latent levels, and return the gradients of the scales before it, float32 [out, groups]."""
        scale, zero = self.scales.scale, self.scales.start.zero
        if kernels.compiled_for(scale):
            digits = unit_bits(self.scales.start.scheme.bits)
            return kernels.move_latent(self.latent, gradient, scale, zero, digits, size, self.limits)
        sums = torch.empty_like(scale)
        for rows in row_chunks(*self.latent.shape):
            shape = (len(sums[rows]), scale.shape[1], -1)
            slope = gradient[rows].float().view(shape)
            sums[rows] = (self.levels(rows).view(shape) - zero[rows].unsqueeze(-1)).mul_(slope).sum(-1)
            moves = slope.sign().mul_(scale[rows].sign().unsqueeze(-1)).mul_(size).view(self.latent[rows].shape)
            self.latent[rows] = (self.latent[rows].int() - moves.int()).clamp_(*self.limits).to(torch.int16)
        return sums

    def state(self) -> tuple[Tensor, ...]:
        """Return copies of the latent levels and the factors."""
        return (self.latent.clone(), *self.scales.state())

    def restore(self, state: tuple[Tensor, ...]) -> None:
        """Set latent levels and factors to those of `state`."""
        self.latent.copy_(state[0])
        self.scales.restore(state[1:])

    def part(self, rows: slice) -> LatentGrid:
        """Return a grid of some rows that shares memory with this one."""
        return LatentGrid(self.latent[rows], self.unit_step, self.scales.part(rows))

    @property
    def divisible(self) -> bool:
        """True if parts of the grid can be stepped separately."""
        return True

    @property
    def started(self) -> bool:
        """True if the grid begins with the levels of a start."""
        return True

    def freeze(self, name: str) -> StoredLayer:
        """Return the quantized layer with the present integers and scales."""
        return self.settled().freeze(name)


@torch.no_grad()
def latent_grid(start: Levels, weight: Tensor, iterations: int, rate: float) -> LatentGrid:
    """Return the grid of a start whose latent levels move by rate / iterations at the first step.

    Args:
        weight: [out, in], the original weight.
        iterations: number of steps, of which the size decreases linearly.
        rate: learning rate of the first step times the number of steps, in levels.
    """
    bits = start.scheme.bits
    one = 1 << unit_bits(bits)
    latent = torch.empty(start.levels.shape, dtype=torch.int16, device=start.levels.device)
    grid = LatentGrid(latent, rate * one / max(1, iterations) ** 2, level_grid(start))
    for rows in row_chunks(*latent.shape):
        levels = start.levels[rows].float()
        shape = (len(levels), start.scale.shape[1], -1)
        position = weight[rows].float().view(shape) / start.scale[rows].unsqueeze(-1) + start.zero[rows].unsqueeze(-1)
        moved = (position.view(levels.shape) - levels).clamp_(-BOUND, BOUND).add_(levels)
        latent[rows] = moved.mul_(one).round_().clamp_(*grid.limits).to(torch.int16)
    return grid
