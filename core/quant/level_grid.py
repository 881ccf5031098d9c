"""A grid whose integers are fixed and whose scales are learned: (level - zero) * scale * factor.

The gradient of a factor is the sum over its group of G (level - zero) * scale, with G = dL/dW_q. Signed steps of the
factors from a good start reduced the error of a block by a quarter to two fifths more than rounding offsets did with
as many tokens. The product of scale and factor is rounded to float16, the dtype of the files, in every pass.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from core.formats.quantized import QuantizedLinear
from core.quant import kernels
from core.quant.grid import storable
from core.quant.start.levels import Levels, row_chunks


@dataclass
class LevelGrid:
    """The tuning state of one layer with fixed integers.

    Attributes:
        start: levels, scales and zero points at the beginning of the tuning.
        factor: float32 [out, groups], factors of the scales.
        scale: float32 [out, groups], present scales: float16 values.
    """

    start: Levels
    factor: Tensor
    scale: Tensor

    @torch.no_grad()
    def quantize_into(self, out: Tensor) -> None:
        """Write the dequantized weight (q - z) s, [out, in], in the dtype of `out`."""
        if self.scale.device.type == "cpu":
            kernels.dequantize(self.start.levels, self.scale, self.start.zero, out)
            return
        for rows in row_chunks(len(out), out.shape[1]):
            out[rows] = replace(self.start, scale=self.scale).values(rows)

    @torch.no_grad()
    def step(self, gradient: Tensor, out: Tensor, steps: int, factor_step: float) -> None:
        """Apply one SignSGD step of the factors, and write the new dequantized weight into `out`.

        Args:
            gradient: dL/dW_q, [out, in], float32 or bfloat16.
            steps: unused, since the integers are fixed.
            factor_step: step size of the factors.
        """
        slope = self.slopes(gradient).mul_(self.start.scale)
        self.factor.sub_(slope.sign_().mul_(factor_step))
        self.set_scales()
        self.quantize_into(out)

    @torch.no_grad()
    def slopes(self, gradient: Tensor) -> Tensor:
        """Return the sums of G (q - z) over the groups, which are dL/ds; float32 [out, groups]."""
        if self.scale.device.type == "cpu":
            return kernels.level_sums(self.start.levels, gradient, self.start.zero)
        sums = torch.empty_like(self.scale)
        for rows in row_chunks(len(sums), gradient.shape[1]):
            products = self.start.centered(rows).mul_(gradient[rows])
            sums[rows] = products.view(*sums[rows].shape, -1).sum(-1)
        return sums

    def set_scales(self) -> None:
        """Compute the present scales from the factors."""
        self.scale.copy_(storable(self.start.scale * self.factor, self.start.scheme.reach))

    def state(self) -> tuple[Tensor, ...]:
        """Return a copy of the factors."""
        return (self.factor.clone(),)

    def restore(self, state: tuple[Tensor, ...]) -> None:
        """Set the factors to those of `state`."""
        self.factor.copy_(state[0])
        self.set_scales()

    def part(self, rows: slice) -> LevelGrid:
        """Return a grid of some rows that shares memory with this one."""
        start = self.start
        levels = Levels(start.scheme, start.levels[rows], start.scale[rows], start.zero[rows])
        return LevelGrid(levels, self.factor[rows], self.scale[rows])

    @property
    def divisible(self) -> bool:
        """True if parts of the grid can be stepped separately."""
        return True

    def freeze(self, name: str) -> QuantizedLinear:
        """Return the quantized layer with the present scales."""
        return QuantizedLinear(
            name=name,
            scheme=self.start.scheme,
            ints=self.start.levels.cpu(),
            scales=self.scale.half().cpu(),
            zeros=self.start.zero.to(torch.uint8).cpu(),
        )


def level_grid(start: Levels) -> LevelGrid:
    """Return the grid of a start."""
    grid = LevelGrid(start, torch.ones_like(start.scale), torch.empty_like(start.scale))
    grid.set_scales()
    return grid
