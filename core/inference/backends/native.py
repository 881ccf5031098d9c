"""Our compiled kernels as linear layers of a torch model: packed weights, activations rounded to 8 or about 15 bits.

Where a model's architecture is known the native program runs it as a whole with the same kernels; this is for the
others. With rows in float32 the activations get two int8 planes, which equals float32 to four digits; in 16-bit dtypes
one, which is as exact as these dtypes are.

Measured on one thread of a Zen 4 with 4 bits in groups of 128: a row through 2048x5632 weights takes 0.3 ms, 512 rows
35 ms; see tests/benchmarks/kernel_speed.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from core.inference.backends.backend import LayerFacts, Missing
from core.inference.native import build, library, matrix

if TYPE_CHECKING:
    from core.formats.stored import Stored
    from core.inference.machine import Device


class NativeBackend:
    """Packed products of our own, compiled on their first use."""

    name = "native"
    title = "Bitwright's compiled kernels"
    takes = "every scheme and block type whose inputs are a multiple of 32"

    def missing(self, device: Device) -> Missing | None:
        if device.kind != "cpu":
            return Missing("It computes on a CPU only.")
        reason = library.why_not()
        return Missing(reason, build.INSTALL) if reason else None

    def refusal(self, facts: LayerFacts, device: Device, dtype: torch.dtype) -> str:
        return matrix.refusal(facts)

    def build(self, layer: Stored, bias: Tensor | None, device: Device, dtype: torch.dtype) -> nn.Module:
        return NativeLinear(layer, bias, dtype)


class NativeLinear(nn.Module):
    """y = x W^T + b by the compiled kernels.

    Args:
        layer: a `QuantizedLinear` or a `BlockLinear`; nothing of it is kept.
        bias: [out] or None.
        dtype: of inputs and outputs; float32 has the activations in two planes.

    Raises:
        BadInput: the kernels have no layout for it.
        MissingDependency: the kernels are not there.
    """

    def __init__(self, layer: Stored, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.out_features, self.in_features = layer.ints.shape
        self.matrix = matrix.pack(layer, bias, 2 if dtype == torch.float32 else 1)
        # Only so that whoever adds up a module's memory finds them: the kernels read them where the matrix says.
        for number, part in enumerate(self.matrix.tensors):
            self.register_buffer(f"part{number}", part, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out], in the dtype of `x`."""
        if x.shape[-1] != self.in_features:
            raise ValueError(f"rows of {self.in_features} inputs are needed, not {tuple(x.shape)}")
        rows = x.detach().reshape(-1, self.in_features).to(torch.float32)
        y = matrix.linear(self.matrix, rows)
        return y.view(*x.shape[:-1], self.out_features).to(x.dtype)
