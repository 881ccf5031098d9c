"""The optimizer Adam (arXiv 1412.6980) for the scales of one grid or one norm."""

from __future__ import annotations

import torch
from torch import Tensor

_MEAN, _SQUARE = 0.9, 0.99
"""Decay of the averages of the gradient and of its square. The usual 0.999 is too slow for a few dozen steps."""
_SMALL = 1e-12


class Adam:
    """Averages of the gradient of a tensor and of its square.

    Args:
        like: the tensor, whose shape and device the averages have.

    Attributes:
        mean, square: the averages.
    """

    def __init__(self, like: Tensor) -> None:
        self.mean = torch.zeros_like(like)
        self.square = torch.zeros_like(like)
        self._steps = 0

    @torch.no_grad()
    def step(self, value: Tensor, gradient: Tensor, rate: float) -> None:
        """Update `value` in place.

        Args:
            gradient: of the loss by the value. Its scale has no effect.
            rate: learning rate, which is the size of the first step.
        """
        self._steps += 1
        self.mean.lerp_(gradient, 1 - _MEAN)
        self.square.mul_(_SQUARE).addcmul_(gradient, gradient, value=1 - _SQUARE)
        root = (self.square / (1 - _SQUARE**self._steps)).sqrt_().add_(_SMALL)
        value.addcdiv_(self.mean, root, value=-rate / (1 - _MEAN**self._steps))
