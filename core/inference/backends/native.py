"""Backend for Bitwright's compiled kernels: packed weights, activations quantized to 8 or about 15 bits.

For known architectures, the native program runs the whole model with the same kernels; this backend is for the others.
Activations in float32 are split into two int8 planes, accurate to four digits; activations in 16-bit dtypes use one
plane, which matches the precision of these dtypes.

Measured on one thread of a Zen 4 with 4 bits in groups of 128: a row through 2048x5632 weights takes 0.3 ms, 512 rows
35 ms; see tests/benchmarks/kernel_speed.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from core.inference.backends.backend import LayerFacts, MissingRequirement
from core.inference.native import build, library, matrix

if TYPE_CHECKING:
    from core.formats.stored import StoredLayer
    from core.inference.machine import Device


class NativeBackend:
    """Compiled kernels for packed products, built on first use."""

    name = "native"
    title = "Bitwright's compiled kernels"
    takes = "every scheme and block type whose inputs are a multiple of 32"

    def missing(self, device: Device) -> MissingRequirement | None:
        if device.kind != "cpu":
            return MissingRequirement("It runs on a CPU only.")
        reason = library.why_not()
        return MissingRequirement(reason, build.INSTALL) if reason else None

    def refusal(self, facts: LayerFacts, device: Device, dtype: torch.dtype) -> str:
        return matrix.refusal(facts)

    def build(self, layer: StoredLayer, bias: Tensor | None, device: Device, dtype: torch.dtype) -> nn.Module:
        return NativeLinear(layer, bias, dtype)


class NativeLinear(nn.Module):
    """y = x W^T + b, computed by the compiled kernels.

    Args:
        layer: a `QuantizedLinear` or a `BlockLinear`; its tensors are copied.
        bias: [out] or None.
        dtype: dtype of inputs and outputs; float32 uses two planes of activations.

    Raises:
        BadInput: the kernels do not support the layer.
        MissingDependency: the kernels are not available.
    """

    def __init__(self, layer: StoredLayer, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.out_features, self.in_features = layer.ints.shape
        self.matrix = matrix.pack(layer, bias, 2 if dtype == torch.float32 else 1)
        # Registered only so that the memory of the module can be summed; the kernels use the matrix's own pointers.
        for number, part in enumerate(self.matrix.tensors):
            self.register_buffer(f"part{number}", part, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output [..., out] of an input [..., in], in the dtype of `x`."""
        if x.shape[-1] != self.in_features:
            raise ValueError(f"expected an input [..., {self.in_features}], got {list(x.shape)}")
        rows = x.detach().reshape(-1, self.in_features).to(torch.float32)
        y = matrix.linear(self.matrix, rows)
        return y.view(*x.shape[:-1], self.out_features).to(x.dtype)
