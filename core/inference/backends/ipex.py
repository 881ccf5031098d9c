"""Backend for Intel's extension for PyTorch (IPEX) in an older environment: packed 4-bit products on a CPU.

Development of IPEX ended with release 2.8, which requires torch 2.8. The call is
`IPEXWeightOnlyQuantizedLinear.from_weight` of intel_extension_for_pytorch.llm.quantization, which expects GPTQ's 4-bit
layout: zero points are stored minus one, modulo 16 (nn/utils/_model_convert.py). Integers of 2 and 3 bits are stored in
4. It computes in bfloat16.

With 2.8.0 on an AMD Zen 4, results are correct but slow: 87 ms for a row of 2048x5632 weights on one thread. It is
therefore the last choice unless requested.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from core.formats.pack import pack_inputs, pack_outputs
from core.formats.quantized import QuantizedLinear
from core.inference.backends.backend import LayerFacts, MissingRequirement
from core.inference.backends.probing import probe
from core.inference.backends.regroup import in_order

if TYPE_CHECKING:
    from core.formats.stored import StoredLayer
    from core.inference.machine import Device

_MODULE = "intel_extension_for_pytorch"
_PACKAGE = "Intel's extension for PyTorch"
INSTALL = "python -m venv ipex && ipex/bin/pip install -e '.[ipex]'"
"""Installs into a separate environment, because IPEX needs torch 2.8."""
_BITS = 4
_UNIT = 8
"""Integers per packed word; inputs and outputs must be multiples of it."""


class IpexBackend:
    """IPEX's weight-only quantized linear layer."""

    name = "ipex"
    title = "Intel's extension for PyTorch (ended with 2.8)"
    takes = "2, 3, 4 bits, groups that divide the inputs"

    def missing(self, device: Device) -> MissingRequirement | None:
        if device.kind != "cpu":
            return MissingRequirement("It is used on a CPU only; current PyTorch supports Intel graphics cards itself.")
        _, problem = _linear()
        return problem

    def refusal(self, facts: LayerFacts, device: Device, dtype: torch.dtype) -> str:
        if facts.scheme.type:
            return "there is no kernel for GGUF types"
        if facts.scheme.bits > 4:
            return f"there is no kernel for {facts.scheme.bits} bits"
        if facts.inputs % facts.scheme.group_of(facts.inputs) or facts.inputs % _UNIT or facts.outputs % _UNIT:
            return f"there is no kernel for {facts.outputs}x{facts.inputs} in groups of {facts.scheme.group_size}"
        return ""

    def build(self, layer: StoredLayer, bias: Tensor | None, device: Device, dtype: torch.dtype) -> nn.Module:
        library, problem = _linear()
        if library is None:
            raise ImportError(problem.reason if problem else _PACKAGE)
        if not isinstance(layer, QuantizedLinear):
            raise TypeError(f"{type(layer).__name__} is not an integer layer")
        return IpexLinear(library, layer, bias)


class IpexLinear(nn.Module):
    """y = x W^T + b, computed by IPEX.

    Args:
        library: the module `intel_extension_for_pytorch.llm.quantization`.
        layer: a layer that `IpexBackend.refusal` accepts.
        bias: [out] or None.
    """

    order: Tensor | None
    bias: Tensor | None

    def __init__(self, library: Any, layer: QuantizedLinear, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = layer.ints.shape
        ints, order = in_order(layer)
        # A single group must be passed as -1; its length is not accepted.
        group = -1 if layer.scales.shape[1] == 1 else layer.scheme.group_of(self.in_features)
        self.inner = library.IPEXWeightOnlyQuantizedLinear.from_weight(
            pack_inputs(ints, _BITS),
            layer.scales.t().contiguous(),
            pack_outputs((layer.zeros - 1) & 15, _BITS),
            self.in_features,
            self.out_features,
            None,
            None,
            group,
            None,
            quant_method=library.QuantMethod.GPTQ_GEMM,
            dtype=library.QuantDtype.INT4,
        )
        self.register_buffer("order", order)
        self.register_buffer("bias", None if bias is None else bias.to(torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """Return the output [..., out] of an input [..., in]."""
        rows = x.reshape(-1, self.in_features)
        if self.order is not None:
            rows = rows[:, self.order]
        y = self.inner(rows.contiguous())
        if self.bias is not None:
            y = y + self.bias
        return y.to(x.dtype).view(*x.shape[:-1], self.out_features)


def _linear() -> tuple[Any, MissingRequirement | None]:
    """Return the module with the linear layer, or the reason why it cannot be used."""
    _, problem = probe(_MODULE, _PACKAGE, INSTALL)
    if problem is not None:
        return None, problem
    library, problem = probe(f"{_MODULE}.llm.quantization", _PACKAGE, INSTALL)
    if problem is None and not hasattr(library, "IPEXWeightOnlyQuantizedLinear"):
        return None, MissingRequirement(f"{_PACKAGE} is too old: it lacks IPEXWeightOnlyQuantizedLinear.", INSTALL)
    return library, problem
