"""Backend for Bitwright's Triton kernels: 2, 3, 4 and 8 bits and GGUF types, on CUDA and XPU devices.

Checks devices and layers; the layer itself is in `core.inference.backends.triton_layer`.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING

from core.inference.backends import trial
from core.inference.backends.backend import NO_CODE_BOOK, LayerFacts, MissingRequirement
from core.schemes import LayerScheme

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from core.formats.stored import StoredLayer
    from core.inference.machine import Device

CAPABILITY = (8, 0)
"""Minimum compute capability of an NVIDIA device, from Triton's documentation."""
_TRIAL = (LayerScheme(4, 128, True),)


class TritonBackend:
    """Triton kernels that unpack the weights inside the product."""

    name = "triton"
    title = "Triton kernels of Bitwright"
    takes = "2, 3, 4, 8 bits of any group, and GGUF's blocks without a code book, on CUDA and XPU"

    def missing(self, device: Device) -> MissingRequirement | None:
        """Return the reason why the backend does not run on the device, or None; compiles a small kernel once."""
        if device.kind not in ("cuda", "xpu"):
            return MissingRequirement("Triton compiles for CUDA and XPU devices only.")
        try:
            found = importlib.util.find_spec("triton")
        except (ImportError, ValueError):  # an incomplete installation
            found = None
        if found is None:
            return MissingRequirement("The package triton is not installed.", _install(device))
        if (old := too_old(device, CAPABILITY)) is not None:
            return old
        import torch

        def build(layer: StoredLayer, bias: Tensor | None) -> nn.Module:
            return self.build(layer, bias, device, torch.bfloat16)

        problem = trial.failure(self.name, device, torch.bfloat16, build, _TRIAL)
        if not problem:
            return None
        # Triton compiles a launcher for each kernel and fails with "Failed to find C compiler" without one.
        return MissingRequirement(problem, "sudo apt install gcc" if "C compiler" in problem else "")

    def refusal(self, facts: LayerFacts, device: Device, dtype: torch.dtype) -> str:
        """Return the reason, as one sentence, why the backend does not support the layer, or ""."""
        import torch

        if facts.inputs % 32:
            return f"{facts.inputs} inputs are not a multiple of 32."
        if not facts.scheme.quantized:
            return "The layer is not quantized."
        if facts.scheme.code_book:
            return f"{NO_CODE_BOOK}."
        if dtype not in (torch.float16, torch.bfloat16, torch.float32):
            return f"It does not compute in {str(dtype).removeprefix('torch.')}."
        return ""

    def build(self, layer: StoredLayer, bias: Tensor | None, device: Device, dtype: torch.dtype) -> nn.Module:
        """Build the module of a layer that `refusal` accepts.

        Raises:
            ValueError: the inputs are not a multiple of 32.
        """
        from core.inference.backends.triton_layer import TritonLinear

        return TritonLinear(layer, bias, device.id, dtype)


def too_old(device: Device, needed: tuple[int, int]) -> MissingRequirement | None:
    """Return the reason why a CUDA device is too old or not from NVIDIA, or None; None for other kinds of devices."""
    if device.kind != "cuda":
        return None
    import torch

    if torch.version.hip is not None:
        return MissingRequirement("It supports NVIDIA devices only, and this is an AMD device.")
    try:
        has = torch.cuda.get_device_capability(device.id)
    except (RuntimeError, AssertionError, ValueError) as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        return MissingRequirement(f"{device.name} failed with: {line.rstrip('.')}.")
    if has < needed:
        return MissingRequirement(
            f"{device.name} has compute capability {has[0]}.{has[1]}; {needed[0]}.{needed[1]} is needed."
        )
    return None


def _install(device: Device) -> str:
    if device.kind == "xpu":  # torch's XPU build depends on a matching build of triton
        return "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/xpu"
    return "pip install triton-windows" if sys.platform == "win32" else "pip install triton"
