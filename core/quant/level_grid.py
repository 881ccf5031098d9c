"""A grid whose integers are fixed and whose scales are learned: (level - zero) * scale * factor.

The gradient of a factor is the sum over its group of G (level - zero) * scale, with G = dL/dW_q. Signed steps of the
factors from a good start reduced the error of a block by a quarter to two fifths more than rounding offsets did with
as many tokens. The product of scale and factor is rounded to float16, the dtype of the files, in every pass.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from core.formats.gguf.blocks import BlockScales
from core.formats.quantized import QuantizedLinear
from core.formats.stored import StoredLayer
from core.quant.device_kernels import fused_for, kernels_for
from core.quant.grid import storable
from core.quant.start.levels import Levels, row_chunks


@dataclass
class LevelGrid:
    """The tuning state of one layer with fixed integers.

    Attributes:
        start: levels and scales at the beginning of the tuning.
        factor: float32 [out, groups], factors of the scales.
        now: the same levels with the present scales: float16 values.
    """

    start: Levels
    factor: Tensor
    now: Levels

    @property
    def scale(self) -> Tensor:
        """Present scales, float32 [out, groups]."""
        return self.now.scale

    @torch.no_grad()
    def quantize_into(self, out: Tensor) -> None:
        """Write the dequantized weight (q - z) s, [out, in], in the dtype of `out`."""
        now = self.now
        kernels = kernels_for(now.scale, now.codes)
        if kernels is not None:
            kernels.dequantize(now.levels, now.scale, now.zero, now.base, out, codes=now.codes)
            return
        for rows in row_chunks(len(out), out.shape[1]):
            out[rows] = now.values(rows)

    @torch.no_grad()
    def step(self, gradient: Tensor, out: Tensor, steps: int, factor_step: float) -> None:
        """Apply one SignSGD step of the factors, and write the new dequantized weight into `out`.

        Args:
            gradient: dL/dW_q, [out, in], float32 or bfloat16.
            steps: unused, since the integers are fixed.
            factor_step: step size of the factors.
        """
        start, fused = self.start, fused_for(self.factor)
        if fused is not None and start.blocks is None:
            scales = (start.zero, start.scale, self.factor, self.now.scale)
            fused.step_levels(start.levels, gradient, *scales, out, factor_step, start.scheme.reach)
            return
        self.factor.sub_(self.slopes(gradient).sign_().mul_(factor_step))
        self.set_scales()
        self.quantize_into(out)

    @torch.no_grad()
    def slopes(self, gradient: Tensor) -> Tensor:
        """Return dL/df of each factor f, float32: the sum of G (q - z) s over its group."""
        return self._level_sums(gradient, self.start.zero).mul_(self.start.scale)

    def _level_sums(self, gradient: Tensor, zero: Tensor) -> Tensor:
        """Return the sums of G (q - z) over the groups, float32 [out, groups]."""
        kernels = kernels_for(zero, self.start.codes)
        if kernels is not None:
            return kernels.level_sums(self.start.levels, gradient, zero, self.start.codes)
        sums = torch.empty_like(zero)
        for rows in row_chunks(len(sums), gradient.shape[1]):
            products = self.start.centered(rows).mul_(gradient[rows])
            sums[rows] = products.view(*sums[rows].shape, -1).sum(-1)
        return sums

    def set_scales(self) -> None:
        """Compute the present scales from the factors."""
        self.now.scale.copy_(storable(self.start.scale * self.factor, self.start.scheme.reach))

    def state(self) -> tuple[Tensor, ...]:
        """Return a copy of the factors."""
        return (self.factor.clone(),)

    def restore(self, state: tuple[Tensor, ...]) -> None:
        """Set the factors to those of `state`."""
        self.factor.copy_(state[0])
        self.set_scales()

    def part(self, rows: slice) -> LevelGrid:
        """Return a grid of some rows that shares memory with this one."""
        return type(self)(self.start.rows(rows), self.factor[rows], self.now.rows(rows))

    def on(self, device: torch.device) -> LevelGrid:
        """Return a grid with its levels on a device, which shares its scales."""
        return self.with_stored_levels(self.start.levels.to(device))

    def with_stored_levels(self, levels: Tensor) -> LevelGrid:
        """Return a grid that shares the scales of this one and has a copy of its levels."""
        return type(self)(self.start.with_levels(levels), self.factor, self.now.with_levels(levels))

    @property
    def divisible(self) -> bool:
        """True if parts of the grid can be stepped separately."""
        return True

    @property
    def started(self) -> bool:
        """True if the grid begins with the levels of a start."""
        return True

    def freeze(self, name: str) -> StoredLayer:
        """Return the quantized layer with the present scales."""
        return QuantizedLinear(
            name=name,
            scheme=self.now.scheme,
            ints=self.now.levels.cpu(),
            scales=self.now.scale.half().cpu(),
            zeros=self.now.zero.to(torch.uint8).cpu(),
        )


class BlockLevelGrid(LevelGrid):
    """A grid of a GGUF block type, whose float16 values d and m are learned; the integers of K types are fixed.

    A weight is f (d s (q - z) - h m n), or f (d q + h m) for legacy types. `factor` is float32 [out, blocks, 1 or 2]
    with f and, for types with minimums, h.
    """

    @torch.no_grad()
    def slopes(self, gradient: Tensor) -> Tensor:
        """Return dL/df and dL/dh of each block, float32 [out, blocks, 1 or 2]."""
        blocks, step, base = self.start.blocks, self.start.scale, self.start.base
        assert blocks is not None
        shape = (*blocks.d.shape, -1)
        by_step = self._level_sums(gradient, self.start.zero).mul_(step).view(shape).sum(-1)
        if base is None:
            return by_step.unsqueeze(-1)
        by_base = gradient.view(*step.shape, -1).sum(-1, dtype=torch.float32).mul_(base).view(shape).sum(-1)
        return torch.stack([by_step + by_base * self.factor[..., 1], by_base * self.factor[..., 0]], -1)

    def set_scales(self) -> None:
        """Compute the present scales from the factors."""
        start, now = self.start.blocks, self.now.blocks
        assert start is not None
        assert now is not None
        common = self.factor[..., 0]
        now.d.copy_(storable(start.d * common, self.start.scheme.reach if start.scales is None else 1))
        if now.m is not None and start.m is not None:
            now.m.copy_((start.m * common * self.factor[..., 1]).clamp_(-65504, 65504).half())
        step, base = now.steps()
        self.now.scale.copy_(step)
        if self.now.base is not None and base is not None:
            self.now.base.copy_(base)

    def freeze(self, name: str) -> StoredLayer:
        """Return the quantized layer with the present scales."""
        assert self.now.blocks is not None
        return self.now.blocks.layer(name, self.now.scheme, self.now.levels)


def level_grid(start: Levels) -> LevelGrid:
    """Return the grid of a start."""
    blocks = start.blocks
    if blocks is None:
        grid = LevelGrid(start, torch.ones_like(start.scale), replace(start, scale=start.scale.clone()))
    else:
        factor = torch.ones(*blocks.d.shape, 1 if blocks.m is None else 2, device=blocks.d.device)
        now = BlockScales(blocks.d.clone(), None if blocks.m is None else blocks.m.clone(), blocks.scales, blocks.mins)
        grid = BlockLevelGrid(start, factor, start.with_blocks(now))
    grid.set_scales()
    return grid
