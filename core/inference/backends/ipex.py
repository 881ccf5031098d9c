"""Intel's extension for PyTorch (IPEX), where an old environment has it: packed 4-bit products on a CPU.

Its last release is 2.8, for torch 2.8 alone; it ended there. The call is `IPEXWeightOnlyQuantizedLinear.from_weight`
of intel_extension_for_pytorch.llm.quantization, which takes GPTQ's layout of 4 bits: zero points are stored less one,
and 16 stands for 0 again (nn/utils/_model_convert.py). 2 and 3 bits are put into its 4. It computes in bfloat16.

Run with 2.8.0 on an AMD Zen 4, where it is right and slow: 87 ms for a row of 2048x5632 weights on one thread. So it
comes last unless it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from core.formats.pack import pack_inputs, pack_outputs
from core.formats.quantized import QuantizedLinear
from core.inference.backends.backend import LayerFacts, Missing
from core.inference.backends.probing import probe
from core.inference.backends.regroup import in_order

if TYPE_CHECKING:
    from core.formats.stored import Stored
    from core.inference.machine import Device

_MODULE = "intel_extension_for_pytorch"
_PACKAGE = "Intel's extension for PyTorch"
INSTALL = "python -m venv ipex && ipex/bin/pip install -e '.[ipex]'"
"""In an environment of its own: it needs torch 2.8."""
_BITS = 4
_UNIT = 8
"""Integers in a packed word; outputs are a multiple of it."""


class IpexBackend:
    """IPEX."""

    name = "ipex"
    title = "Intel's extension for PyTorch (ended with 2.8)"
    takes = "2, 3, 4 bits, groups that divide the inputs"

    def missing(self, device: Device) -> Missing | None:
        if device.kind != "cpu":
            return Missing("It is used on a CPU only: newer torch drives Intel's cards itself.")
        _, problem = _linear()
        return problem

    def refusal(self, facts: LayerFacts, device: Device, dtype: torch.dtype) -> str:
        if facts.scheme.type:
            return "GGUF's types have no kernel"
        if facts.scheme.bits > 4:
            return f"{facts.scheme.bits} bits have no kernel"
        if facts.inputs % facts.scheme.group_of(facts.inputs) or facts.inputs % _UNIT or facts.outputs % _UNIT:
            return f"{facts.outputs}x{facts.inputs} in groups of {facts.scheme.group_size} has no kernel"
        return ""

    def build(self, layer: Stored, bias: Tensor | None, device: Device, dtype: torch.dtype) -> nn.Module:
        library, problem = _linear()
        if library is None:
            raise ImportError(problem.reason if problem else _PACKAGE)
        if not isinstance(layer, QuantizedLinear):
            raise TypeError(f"{type(layer).__name__} is no integer layer")
        return IpexLinear(library, layer, bias)


class IpexLinear(nn.Module):
    """y = x W^T + b by IPEX.

    Args:
        library: the module `intel_extension_for_pytorch.llm.quantization`.
        layer: that `IpexBackend.refusal` lets through.
        bias: [out] or None.
    """

    order: Tensor | None
    bias: Tensor | None

    def __init__(self, library: Any, layer: QuantizedLinear, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = layer.ints.shape
        ints, order = in_order(layer)
        # With a single group it wants to be told so, and fails at the row's length.
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
        """[..., in] -> [..., out]."""
        rows = x.reshape(-1, self.in_features)
        if self.order is not None:
            rows = rows[:, self.order]
        y = self.inner(rows.contiguous())
        if self.bias is not None:
            y = y + self.bias
        return y.to(x.dtype).view(*x.shape[:-1], self.out_features)


def _linear() -> tuple[Any, Missing | None]:
    """The module with the linear layer, or what is wrong."""
    _, problem = probe(_MODULE, _PACKAGE, INSTALL)
    if problem is not None:
        return None, problem
    library, problem = probe(f"{_MODULE}.llm.quantization", _PACKAGE, INSTALL)
    if problem is None and not hasattr(library, "IPEXWeightOnlyQuantizedLinear"):
        return None, Missing(f"{_PACKAGE} is too old: it has no IPEXWeightOnlyQuantizedLinear.", INSTALL)
    return library, problem
