"""Backends for the CUDA kernels of gptqmodel: Marlin and ExLlamaV2.

Written after gptqmodel 7.7 (nn_modules/qlinear/marlin.py, exllamav2.py, utils/model.py). A trial layer on the device
decides whether they are used. gptqmodel compiles its kernels on first use, which takes minutes and needs the CUDA
compiler, and caches them.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from core.inference.backends import trial
from core.inference.backends.backend import LayerFacts, MissingRequirement
from core.inference.backends.triton import too_old
from core.schemes import LayerScheme

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from core.formats.quantized import QuantizedLinear
    from core.formats.stored import StoredLayer
    from core.inference.machine import Device

INSTALL: Final = "pip install gptqmodel"
_GROUPS: Final = (-1, 32, 64, 128)
_BLOCKS: Final = {"q4_0": LayerScheme(4, 32, True), "q8_0": LayerScheme(8, 32, True)}
"""GGUF types that are equivalent to a plain scheme."""


class MarlinBackend:
    """Marlin kernels for 4 and 8 bits, symmetric."""

    name = "marlin"
    title = "Marlin, through gptqmodel"
    takes = "4 and 8 bits, symmetric, groups of 32, 64, 128 or a row, on CUDA"

    def missing(self, device: Device) -> MissingRequirement | None:
        """Return the reason why the backend does not run on the device, or None; may compile kernels once."""
        if sys.platform != "linux" and device.kind == "cuda":
            return MissingRequirement("gptqmodel provides Marlin on Linux only.")
        return _missing(self.name, "marlin", device, self.build, (LayerScheme(4, 128, True), LayerScheme(8, 64, True)))

    def refusal(self, facts: LayerFacts, device: Device, dtype: torch.dtype) -> str:
        """Return the reason, as one sentence, why the backend does not support the layer, or ""."""
        scheme = _BLOCKS.get(facts.scheme.type, facts.scheme)
        if scheme.bits not in (4, 8) or not scheme.sym or scheme.code_book:
            return f"It supports 4 and 8 bits, symmetric, not {facts.scheme.label()}."
        inputs, outputs = facts.inputs, facts.outputs
        aligned = (outputs % 64 == 0 and inputs % 128 == 0) or (outputs % 128 == 0 and inputs % 64 == 0)
        if facts.act_order and scheme.group_size != -1 and not aligned:
            return f"With act-order it needs tiles of 64x128 or 128x64, which do not divide {outputs}x{inputs}."
        return _refusal(facts, scheme, dtype)

    def build(self, layer: StoredLayer, bias: Tensor | None, device: Device, dtype: torch.dtype) -> nn.Module:
        """Build the module of a layer that `refusal` accepts."""
        plain = _plain(layer)
        # With one group per row, the order of the inputs does not matter.
        act_order = plain.g_idx is not None and plain.scheme.group_size != -1
        linear = _make("marlin", "MarlinLinear", plain, bias, dtype, act_order=act_order)
        linear.to(device.id)
        linear.post_init()
        return _ready(linear)


class ExllamaBackend:
    """ExLlamaV2 kernels for 4 bits, symmetric or asymmetric."""

    name = "exllama"
    title = "ExLlamaV2, through gptqmodel"
    takes = "4 bits, groups of 32, 64, 128 or a row, on CUDA; computes in float16"

    def missing(self, device: Device) -> MissingRequirement | None:
        """Return the reason why the backend does not run on the device, or None; may compile kernels once."""
        schemes = (LayerScheme(4, 128, True), LayerScheme(4, 64, False))
        return _missing(self.name, "exllamav2", device, self.build, schemes)

    def refusal(self, facts: LayerFacts, device: Device, dtype: torch.dtype) -> str:
        """Return the reason, as one sentence, why the backend does not support the layer, or ""."""
        scheme = _BLOCKS.get(facts.scheme.type, facts.scheme)
        if scheme.bits != 4 or scheme.type:
            return f"It supports 4 bits, not {facts.scheme.label()}."
        return _refusal(facts, scheme, dtype)

    def build(self, layer: StoredLayer, bias: Tensor | None, device: Device, dtype: torch.dtype) -> nn.Module:
        """Build the module of a layer that `refusal` accepts."""
        plain = _plain(layer)
        act_order = plain.g_idx is not None and plain.scheme.group_size != -1
        linear = _make("exllamav2", "ExllamaV2Linear", plain, bias, dtype, act_order=act_order)
        if not act_order:
            linear.g_idx.zero_()  # gptqmodel's convention for inputs in natural order
        linear.to(device.id)
        linear.post_init(_scratch(linear.temp_dq_size(), device.id))
        return _ready(linear)


def _missing(
    name: str,
    module: str,
    device: Device,
    build: Callable[[StoredLayer, Tensor | None, Device, torch.dtype], nn.Module],
    schemes: tuple[LayerScheme, ...],
) -> MissingRequirement | None:
    """Return the reason why a kernel cannot be used: no CUDA device, no package, or a trial layer that fails."""
    if device.kind != "cuda":
        return MissingRequirement("gptqmodel provides these kernels for CUDA devices only.")
    if (old := too_old(device, (8, 0))) is not None:
        return old
    if importlib.util.find_spec("gptqmodel") is None:
        return MissingRequirement("The package gptqmodel is not installed.", INSTALL)
    if (problem := _import_problem(module)) is not None:
        return problem
    import torch

    def trial_layer(layer: StoredLayer, bias: Tensor | None) -> nn.Module:
        return build(layer, bias, device, torch.float16)

    reason = trial.failure(name, device, torch.float16, trial_layer, schemes)
    return MissingRequirement(reason) if reason else None


@functools.cache
def _import_problem(module: str) -> MissingRequirement | None:
    try:
        with contextlib.redirect_stdout(sys.stderr):  # it prints a banner
            importlib.import_module(f"gptqmodel.nn_modules.qlinear.{module}")
    except Exception as error:  # noqa: BLE001 - the package runs arbitrary code at import
        line = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        return MissingRequirement(
            f"gptqmodel is installed but cannot be imported: {line.rstrip('.')}.", f"{INSTALL} --upgrade"
        )
    return None


def _refusal(facts: LayerFacts, scheme: LayerScheme, dtype: torch.dtype) -> str:
    import torch

    if dtype not in (torch.float16, torch.bfloat16):
        return f"It computes in 16 bits, not in {str(dtype).removeprefix('torch.')}."
    if scheme.group_size not in _GROUPS:
        return f"It supports groups of 32, 64, 128 or a row, not of {scheme.group_size}."
    if facts.inputs % 32 or facts.outputs % 32 or facts.inputs % scheme.group_of(facts.inputs):
        return f"{facts.outputs}x{facts.inputs} is not divisible by 32 and the group size."
    return ""


def _plain(layer: StoredLayer) -> QuantizedLinear:
    """Return the layer as integers with float16 scales, converting the GGUF types of _BLOCKS."""
    from core.formats.gguf.blocks import BlockLinear
    from core.formats.quantized import QuantizedLinear

    if isinstance(layer, QuantizedLinear):
        return layer
    assert isinstance(layer, BlockLinear)
    import torch

    scheme = _BLOCKS[layer.scheme.type]
    zeros = torch.full_like(layer.d, scheme.levels // 2, dtype=torch.uint8)
    return QuantizedLinear(layer.name, scheme, layer.ints, layer.d, zeros)


def _make(
    module: str, cls: str, layer: QuantizedLinear, bias: Tensor | None, dtype: torch.dtype, *, act_order: bool
) -> Any:
    """Return gptqmodel's layer on the CPU, filled with tensors in version 2 of the GPTQ format (exact zero points)."""
    import torch

    from core.formats.pack import pack_inputs, pack_outputs

    made = getattr(importlib.import_module(f"gptqmodel.nn_modules.qlinear.{module}"), cls)(
        bits=layer.scheme.bits,
        group_size=layer.scheme.group_size,
        desc_act=act_order,
        sym=layer.scheme.sym,
        in_features=layer.in_features,
        out_features=layer.out_features,
        bias=bias is not None,
        dtype=dtype,
    )
    tensors = {
        "qweight": pack_inputs(layer.ints, layer.scheme.bits),
        "qzeros": pack_outputs(layer.zeros, layer.scheme.bits),
        "scales": layer.scales.T.contiguous(),
        "g_idx": layer.g_idx
        if act_order
        else torch.arange(layer.in_features) // layer.scheme.group_of(layer.in_features),
        "bias": bias,
    }
    for name, value in tensors.items():
        target = getattr(made, name)
        if value is None or target is None:
            continue
        if target.shape != value.shape:
            raise ValueError(f"gptqmodel's {name} has the shape {tuple(target.shape)}, not {tuple(value.shape)}")
        target.data.copy_(value)
    made.qzero_format(format=2)
    return made


def _ready(linear: Any) -> nn.Module:
    linear.eval()
    module: nn.Module = linear
    return module


_scratches: dict[str, Any] = {}


def _scratch(nbytes: int, device: str) -> Any:
    """Return the buffer into which ExLlamaV2 unpacks a layer for many rows, shared by all layers of a device."""
    held = _scratches.get(device)
    if held is None or held.scratch_bytes < nbytes + 128:
        space = importlib.import_module("gptqmodel.utils.exllamav2").ScratchSpace
        _scratches[device] = held = space(scratch_bytes=nbytes + 128, dev=device)
    return held
