"""The tensors that hold one quantized layer in a file: names, shapes, and the way to and from `QuantizedLinear`.

Four layouts cover GPTQ, AWQ and AutoRound checkpoints; they differ in the direction of packing and in whether
zero points are stored less one. With N outputs, K inputs, G groups and b bits:

    bitstream   qweight I32 [K*b/32, N]   qzeros I32 [G, N*b/32]   scales F16 [G, N]
    AWQ         qweight I32 [K, N*b/32]   qzeros I32 [G, N*b/32]   scales F16 [G, N]

Knows nothing of configs, of files, or of which format wants which layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from core.formats.pack import (
    AWQ_ORDER,
    PLAIN_ORDER,
    block_values,
    pack_inputs,
    pack_outputs,
    unpack_inputs,
    unpack_outputs,
)
from core.formats.quantized import QuantizedLinear
from core.model.writer import TensorPlan
from core.schemes import LayerScheme

PARTS = ("qweight", "qzeros", "scales", "g_idx")
"""Last parts of the names of a quantized layer's tensors."""


@dataclass(frozen=True)
class Packing:
    """A layout of quantized layers.

    Attributes:
        name: what AutoRound's config calls it (`packing_format`).
        awq: packed along the outputs in AWQ's order, else along the inputs as a plain bitstream.
        zero_bias: what readers add to a stored zero point; 1 in GPTQ's first version, 0 elsewhere.
        g_idx: a tensor with the group of each input goes along.
    """

    name: str
    awq: bool = False
    zero_bias: int = 0
    g_idx: bool = False

    @property
    def order(self) -> tuple[int, ...]:
        return AWQ_ORDER if self.awq else PLAIN_ORDER


AUTO_ROUND = Packing("auto_round")
AUTO_ROUND_GPTQ = Packing("auto_round:auto_gptq", zero_bias=1)
AUTO_ROUND_AWQ = Packing("auto_round:auto_awq", awq=True)
GPTQ = Packing("auto_gptq", zero_bias=1, g_idx=True)
GPTQ_V2 = Packing("auto_round:gptqmodel", g_idx=True)


def planned(packing: Packing, name: str, scheme: LayerScheme, in_features: int, out_features: int) -> list[TensorPlan]:
    """The tensors of one layer; in and out features are multiples of 32."""
    groups, bits = scheme.groups(in_features), scheme.bits
    words = out_features * bits // 32
    weight = (in_features, words) if packing.awq else (in_features * bits // 32, out_features)
    tensors = [
        TensorPlan(f"{name}.qweight", "I32", weight),
        TensorPlan(f"{name}.qzeros", "I32", (groups, words)),
        TensorPlan(f"{name}.scales", "F16", (groups, out_features)),
    ]
    if packing.g_idx:
        tensors.append(TensorPlan(f"{name}.g_idx", "I32", (in_features,)))
    return tensors


def encode(packing: Packing, layer: QuantizedLinear) -> dict[str, Tensor]:
    """The tensors of a layer by full name.

    Raises:
        ValueError: values that this layout cannot hold; a zero point of 0 where 1 is subtracted, for one.
    """
    bits, zeros = layer.scheme.bits, layer.zeros
    if packing.zero_bias and int(zeros.min()) < packing.zero_bias:
        raise ValueError(f"{layer.name}: this layout cannot store a zero point of 0")
    if layer.scheme.sym and not bool((zeros == 1 << (bits - 1)).all()):
        # Fast kernels do not read the zero points of symmetric layers.
        raise ValueError(f"{layer.name}: a symmetric layer has a zero point that is not the middle")
    weight = pack_outputs(layer.ints, bits, packing.order) if packing.awq else pack_inputs(layer.ints, bits)
    tensors = {
        f"{layer.name}.qweight": weight,
        f"{layer.name}.qzeros": pack_outputs(zeros - packing.zero_bias, bits, packing.order),
        f"{layer.name}.scales": layer.scales.T.contiguous(),
    }
    if packing.g_idx:
        tensors[f"{layer.name}.g_idx"] = plain_groups(layer.scheme, layer.in_features).to(weight.device)
    return tensors


def decode(packing: Packing, name: str, scheme: LayerScheme, parts: Mapping[str, Tensor]) -> QuantizedLinear:
    """The layer in tensors keyed `qweight`, `qzeros` and `scales`, whose shapes `measure` has accepted.

    A stored zero point of all ones wraps to 0 where 1 is added: that is how older GPTQ programs stored a 0.
    """
    bits = scheme.bits
    if packing.awq:
        ints = unpack_outputs(parts["qweight"], bits, packing.order)
    else:
        ints = unpack_inputs(parts["qweight"], bits)
    zeros = unpack_outputs(parts["qzeros"], bits, packing.order)
    if packing.zero_bias:
        zeros = (zeros + packing.zero_bias) & ((1 << bits) - 1)
    return QuantizedLinear(name, scheme, ints, parts["scales"].T.contiguous(), zeros)


def plain_groups(scheme: LayerScheme, in_features: int) -> Tensor:
    """The `g_idx` of groups in their natural order: int32 [in], k // group."""
    return torch.arange(in_features, dtype=torch.int32) // scheme.group_of(in_features)


@dataclass(frozen=True)
class Measures:
    """What the shapes of a layer's tensors say by themselves."""

    bits: int
    in_features: int
    out_features: int
    groups: int


def measure(packing: Packing, shapes: Mapping[str, tuple[int, ...]]) -> Measures | None:
    """Bits and sizes of a layer from the shapes of its parts; None where they contradict each other."""
    weight, zeros, scales = (shapes[part] for part in PARTS[:3])
    if any(len(shape) != 2 or 0 in shape for shape in (weight, zeros, scales)):
        return None
    groups, out_features = scales
    bits, rest = divmod(zeros[1] * 32, out_features)
    if rest or not 1 <= bits <= 8 or zeros[0] != groups or out_features % block_values(bits):
        return None
    if packing.awq:
        in_features, fits = weight[0], weight[1] == zeros[1]
    else:
        in_features, rest = divmod(weight[0] * 32, bits)
        fits = not rest and weight[1] == out_features and not in_features % block_values(bits)
    return Measures(bits, in_features, out_features, groups) if fits else None
