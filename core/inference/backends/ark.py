"""Backend for Intel's auto-round-lib (`auto_round_kernel`): packed matrix products on CPUs and Intel graphics cards.

The calls are those of its `QuantLinear.post_init` and `forward` (auto_round_kernel/qlinear.py, 0.16.0). Weights are
passed as int8 [in, out] minus half the number of levels, scales as float32 (CPU) or float16 (XPU). On a CPU the rows
must be float32, because bfloat16 rows made the library write out of bounds; it computes exactly in float32 and
supports more bit widths than its own layer accepts. Measured with one thread on 2048x5632 weights, groups of 128, one
row: 2 to 4 bits 1.4 ms, 8 bits 2.0 ms (dense float32: 2.7 ms). The XPU path follows the library's source and has not
been run.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from core.formats.gguf.blocks import BlockLinear
from core.formats.quantized import QuantizedLinear
from core.inference.backends.backend import NO_CODE_BOOK, LayerFacts, MissingRequirement
from core.inference.backends.probing import probe
from core.inference.backends.regroup import group_for, in_order, spread

if TYPE_CHECKING:
    from core.formats.stored import StoredLayer
    from core.inference.machine import Device

INSTALL = "pip install auto-round-lib"
_BITS = {"cpu": (2, 3, 4, 5, 6, 8), "xpu": (4, 8)}
_GROUPS = (1024, 512, 256, 128, 64, 32, 16)
_KINDS = {"cpu": ("cpu_lib", torch.float32, "fp32", "auto"), "xpu": ("xpu_lib", torch.float16, "fp16", "int8")}
"""Kind of device -> name of the compiled library, dtype of the rows, its name in the library, compute type."""


class ArkBackend:
    """auto-round-lib."""

    name = "ark"
    title = "auto-round-lib (Intel)"
    takes = "CPU: 2, 3, 4, 8 bits, any group; XPU: 4, 8 bits symmetric"

    def missing(self, device: Device) -> MissingRequirement | None:
        if device.kind not in _KINDS:
            return MissingRequirement("It runs on CPUs and Intel graphics cards only.")
        library, problem = probe("auto_round_kernel", "auto-round-lib", INSTALL)
        if problem is not None:
            return problem
        lacking = [name for name in ("woqgemm", "repack_quantized_weight") if not hasattr(library, name)]
        if lacking:
            return MissingRequirement(
                f"The installed auto-round-lib is too old: it lacks {lacking[0]}.", f"{INSTALL} -U"
            )
        if getattr(library, _KINDS[device.kind][0], None) is None:
            return MissingRequirement(f"The installed auto-round-lib cannot load its {device.kind.upper()} library.")
        if device.kind == "cpu" and torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
            return MissingRequirement("It needs a processor with AVX2.")
        return None

    def refusal(self, facts: LayerFacts, device: Device, dtype: torch.dtype) -> str:
        scheme = facts.scheme
        if scheme.code_book:
            return NO_CODE_BOOK
        if scheme.bits not in _BITS[device.kind]:
            return f"there is no kernel for {scheme.bits} bits"
        if not scheme.sym and (device.kind != "cpu" or scheme.type):
            kind = "GGUF types with minimums" if scheme.type else "asymmetric layers on an XPU"
            return f"there is no kernel for {kind}"
        if not group_for(scheme.group_of(facts.inputs), facts.inputs, _GROUPS):
            return f"groups of {scheme.group_of(facts.inputs)} do not divide {facts.inputs} inputs"
        return ""

    def build(self, layer: StoredLayer, bias: Tensor | None, device: Device, dtype: torch.dtype) -> nn.Module:
        library, problem = probe("auto_round_kernel", "auto-round-lib", INSTALL)
        if library is None:
            raise ImportError(problem.reason if problem else "auto-round-lib")
        return ArkLinear(library, layer, bias, device)


class ArkLinear(nn.Module):
    """y = x W^T + b by auto-round-lib.

    Args:
        library: the module `auto_round_kernel`.
        layer: stored layer with a bit width and groups that `ArkBackend.refusal` accepts.
        bias: [out] or None.
        device: device to compute on.
    """

    order: Tensor | None
    bias: Tensor

    def __init__(self, library: ModuleType, layer: StoredLayer, bias: Tensor | None, device: Device) -> None:
        super().__init__()
        self._library = library
        self.out_features, self.in_features = layer.ints.shape
        _, self.rows_dtype, scale_type, compute_type = _KINDS[device.kind]
        size, inputs = layer.scheme.group_of(self.in_features), self.in_features
        group = group_for(size, inputs, _GROUPS)
        ints, order = in_order(layer)
        middle = layer.scheme.levels // 2
        scales, zeros = _grid(layer)
        asym = zeros is not None
        # uint8 minus `middle` wraps around to the two's complement of the int8 value
        weight = (ints - middle).view(torch.int8).t().contiguous()
        scales = spread(scales, size, group, inputs).t().to(self.rows_dtype).contiguous()
        points = torch.empty(0, dtype=torch.int8)
        if zeros is not None:
            points = (spread(zeros, size, group, inputs) - middle).view(torch.int8).t().contiguous()
        self._kernel_args: tuple[Any, ...] = (group, compute_type, f"int{layer.scheme.bits}", scale_type, asym)
        tensors = (part.to(device.id) for part in (weight, scales, points))
        packed = library.repack_quantized_weight(*tensors, *self._kernel_args)
        self.register_buffer("packed", packed)
        self.register_buffer("order", None if order is None else order.to(device.id))
        bias = torch.empty(0) if bias is None else bias
        self.register_buffer("bias", bias.to(device.id, self.rows_dtype).contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """Return the output [..., out] of an input [..., in]."""
        rows = x.reshape(-1, self.in_features)
        if self.order is not None:
            rows = rows[:, self.order]
        rows = rows.to(self.rows_dtype).contiguous()
        y = self._library.woqgemm(rows, self.packed, self.bias, self.out_features, self.in_features, *self._kernel_args)
        return y.to(x.dtype).view(*x.shape[:-1], self.out_features)


def _grid(layer: StoredLayer) -> tuple[Tensor, Tensor | None]:
    """Return the scales, float32 [out, groups], and the zero points, or None for symmetric layers."""
    if isinstance(layer, BlockLinear):
        return layer.steps()[0], None
    if not isinstance(layer, QuantizedLinear):
        raise TypeError(f"{type(layer).__name__} is not a stored layer")
    return layer.scales.to(torch.float32), None if layer.scheme.sym else layer.zeros
