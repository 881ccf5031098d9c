"""Our own Triton kernels as a backend: 2, 3, 4 and 8 bits and GGUF's blocks, on CUDA and XPU devices.

Knows where they can run and which layers they take; `core.inference.backends.triton_layer` computes.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING

from core.inference.backends import trial
from core.inference.backends.backend import LayerFacts, Missing
from core.schemes import LayerScheme

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from core.formats.stored import Stored
    from core.inference.machine import Device

CAPABILITY = (8, 0)
"""Of an NVIDIA device; what Triton's own documentation asks for."""
_TRIAL = (LayerScheme(4, 128, True),)


class TritonBackend:
    """Weights stay packed and are unpacked inside the product."""

    name = "triton"
    title = "Triton kernels of Bitwright"
    takes = "2, 3, 4, 8 bits of any group, and GGUF's blocks, on CUDA and XPU"

    def missing(self, device: Device) -> Missing | None:
        """What keeps it from this device, or None where it works; compiles a small kernel the first time."""
        if device.kind not in ("cuda", "xpu"):
            return Missing("Triton compiles for CUDA and XPU devices only.")
        try:
            found = importlib.util.find_spec("triton")
        except (ImportError, ValueError):  # half a package
            found = None
        if found is None:
            return Missing("The package triton is not installed.", _install(device))
        if (old := too_old(device, CAPABILITY)) is not None:
            return old
        import torch

        def build(layer: Stored, bias: Tensor | None) -> nn.Module:
            return self.build(layer, bias, device, torch.bfloat16)

        problem = trial.failure(self.name, device, torch.bfloat16, build, _TRIAL)
        if not problem:
            return None
        # Triton compiles a launcher for each kernel; its message for this is "Failed to find C compiler".
        return Missing(problem, "sudo apt install gcc" if "C compiler" in problem else "")

    def refusal(self, facts: LayerFacts, device: Device, dtype: torch.dtype) -> str:
        """Why it cannot compute this layer, as one sentence; "" where it can."""
        import torch

        if facts.inputs % 32:
            return f"{facts.inputs} inputs are no multiple of 32."
        if not facts.scheme.quantized:
            return "The layer is not quantized."
        if dtype not in (torch.float16, torch.bfloat16, torch.float32):
            return f"It does not compute in {str(dtype).removeprefix('torch.')}."
        return ""

    def build(self, layer: Stored, bias: Tensor | None, device: Device, dtype: torch.dtype) -> nn.Module:
        """The layer ready to run.

        Raises:
            ValueError: its inputs are no multiple of 32.
        """
        from core.inference.backends.triton_layer import TritonLinear

        return TritonLinear(layer, bias, device.id, dtype)


def too_old(device: Device, needed: tuple[int, int]) -> Missing | None:
    """Why a CUDA device is of too old a kind, or not NVIDIA's; None where it is not, and for other kinds of device."""
    if device.kind != "cuda":
        return None
    import torch

    if torch.version.hip is not None:
        return Missing("It was written for NVIDIA's devices, and this one is AMD's.")
    try:
        has = torch.cuda.get_device_capability(device.id)
    except (RuntimeError, AssertionError, ValueError) as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        return Missing(f"{device.name} does not answer: {line.rstrip('.')}.")
    if has < needed:
        return Missing(f"{device.name} has compute capability {has[0]}.{has[1]}; {needed[0]}.{needed[1]} is needed.")
    return None


def _install(device: Device) -> str:
    if device.kind == "xpu":  # torch's XPU build asks for the build of triton that belongs to it
        return "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/xpu"
    return "pip install triton-windows" if sys.platform == "win32" else "pip install triton"
