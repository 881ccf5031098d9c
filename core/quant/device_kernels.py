"""Choice of the compiled kernels of the grids: numba's loops on a CPU, Triton's kernels on CUDA and XPU devices.

Without kernels, a grid uses torch operations, which have the same results.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from core.quant import kernels

GPUS = frozenset({"cuda", "xpu"})
"""Types of the devices that Triton compiles for."""


class GridKernels(Protocol):
    """Kernels that `core.quant.kernels` and `core.quant.triton_kernels` have."""

    def quantize(
        self,
        weight: Tensor,
        offset: Tensor,
        scale: Tensor,
        zero: Tensor,
        base: Tensor | None,
        unit: float,
        bounds: tuple[int, int],
        out: Tensor,
        codes: Tensor | None = None,
    ) -> None:
        """Write the dequantized weight of rounding offsets into `out`."""

    def step(
        self,
        weight: Tensor,
        gradient: Tensor,
        offset: Tensor,
        scale: Tensor,
        zero: Tensor,
        base: Tensor | None,
        unit: float,
        steps: int,
        bounds: tuple[int, int],
        codes: Tensor | None = None,
    ) -> Tensor:
        """Move rounding offsets, and return the sums for the gradients of the ranges."""

    def dequantize(
        self,
        levels: Tensor,
        scale: Tensor,
        zero: Tensor,
        base: Tensor | None,
        out: Tensor,
        digits: int = 0,
        codes: Tensor | None = None,
    ) -> None:
        """Write the dequantized weight of levels into `out`."""

    def level_sums(self, levels: Tensor, gradient: Tensor, zero: Tensor, codes: Tensor | None = None) -> Tensor:
        """Return the sums of G (level - zero) over each group."""


class FusedStep(Protocol):
    """The step of a grid with levels in one launch, which `core.quant.triton_kernels` has."""

    def step_levels(
        self,
        levels: Tensor,
        gradient: Tensor,
        zero: Tensor,
        start_scale: Tensor,
        factor: Tensor,
        scale: Tensor,
        out: Tensor,
        factor_step: float,
        reach: int,
        latent: tuple[int, int, tuple[int, int]] | None = None,
    ) -> None:
        """Step factors and latent levels, and write the new dequantized weight into `out`."""


def kernels_for(tensor: Tensor, codes: Tensor | None = None) -> GridKernels | None:
    """Return the kernels for the device of a tensor and a code book; None if there are none.

    Triton's kernels compute with evenly spaced levels only.
    """
    if kernels.compiled_for(tensor):
        return kernels
    return None if codes is not None else cast("GridKernels | None", _for_gpu(tensor))


def fused_for(tensor: Tensor) -> FusedStep | None:
    """Return the fused step for the device of a tensor; None if there is none."""
    return cast("FusedStep | None", _for_gpu(tensor))


def _for_gpu(tensor: Tensor) -> Any:
    if tensor.device.type not in GPUS or missing(tensor.device):
        return None
    return importlib.import_module("core.quant.triton_kernels")


@cache
def missing(device: torch.device) -> str:
    """Return the reason why Triton's kernels are not used on a GPU, as one sentence, or "".

    A small step is compared with that of torch operations once per device.
    """
    if importlib.util.find_spec("triton") is None:
        return "The package triton is not installed."
    try:
        return "" if _trial(device) else "A trial step has wrong results."
    except Exception as error:  # noqa: BLE001 - drivers and compilers fail in any way, and torch operations remain
        line = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        return f"A trial step failed: {line.rstrip('.')}."


def _trial(device: torch.device) -> bool:
    """Return whether a fused step of a small matrix with exact sums is right."""
    made: FusedStep = importlib.import_module("core.quant.triton_kernels")
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(0, 16, (8, 96), generator=generator, dtype=torch.uint8)
    gradient = torch.randint(-3, 4, (8, 96), generator=generator).float()
    begun = torch.rand(8, 3, generator=generator).half().float()
    zero, out = torch.full((8, 3), 8.0), torch.empty(8, 96, device=device)
    sums = ((levels.view(8, 3, 32) - zero.unsqueeze(-1)) * gradient.view(8, 3, 32)).sum(-1)
    factor = 1 - sums.sign() * 0.25
    scale = (begun * factor).half().float()
    expected = (levels.view(8, 3, 32) - zero.unsqueeze(-1)) * scale.unsqueeze(-1)
    given = [part.to(device) for part in (levels, gradient, zero, begun, torch.ones(8, 3), begun.clone())]
    made.step_levels(*given, out, 0.25, 8)  # type: ignore[call-arg, arg-type]
    return torch.equal(out.cpu(), expected.view(8, 96)) and torch.equal(given[4].cpu(), factor)
