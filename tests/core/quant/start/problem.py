"""A layer with correlated inputs, for the tests of the start."""

from __future__ import annotations

import torch
from torch import Tensor


def layer(out: int = 32, width: int = 128, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return a weight [out, width] and the Gram matrix [width, width] of inputs with a decaying spectrum."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(out, width, generator=generator) * 0.05
    mix = torch.randn(width, width, generator=generator) * torch.logspace(0, -1.5, width).unsqueeze(-1)
    inputs = torch.randn(8 * width, width, generator=generator) @ mix
    return weight, inputs.T @ inputs / len(inputs)
