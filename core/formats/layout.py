"""Encoding of a `QuantizedLinear` as the tensors of a checkpoint, and decoding."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from core.formats.pack import pack_inputs, pack_outputs, unpack_inputs, unpack_outputs
from core.formats.packing import Packing
from core.formats.quantized import QuantizedLinear, check_groups, natural_groups
from core.model.writer import TensorPlan
from core.schemes import LayerScheme


def planned(packing: Packing, name: str, scheme: LayerScheme, in_features: int, out_features: int) -> list[TensorPlan]:
    """Return the tensors of one layer; `in_features` and `out_features` are multiples of 32."""
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
    """Return the tensors of a layer by full name.

    Raises:
        ValueError: the packing cannot store the layer, such as a zero point of 0 if it subtracts 1.
    """
    bits, zeros = layer.scheme.bits, layer.zeros
    if packing.zero_bias and int(zeros.min()) < packing.zero_bias:
        raise ValueError(f"{layer.name}: this layout cannot store a zero point of 0")
    if layer.scheme.sym and not bool((zeros == 1 << (bits - 1)).all()):
        # Fast kernels ignore the zero points of symmetric layers.
        raise ValueError(f"{layer.name}: a symmetric layer has a zero point that is not the middle")
    if layer.g_idx is not None and not packing.g_idx:
        raise ValueError(f"{layer.name}: this layout cannot store act-order (desc_act)")
    weight = pack_outputs(layer.ints, bits, packing.order) if packing.awq else pack_inputs(layer.ints, bits)
    tensors = {
        f"{layer.name}.qweight": weight,
        f"{layer.name}.qzeros": pack_outputs(zeros - packing.zero_bias, bits, packing.order),
        f"{layer.name}.scales": layer.scales.T.contiguous(),
    }
    if packing.g_idx:
        natural = natural_groups(layer.scheme, layer.in_features).to(weight.device)
        tensors[f"{layer.name}.g_idx"] = natural if layer.g_idx is None else layer.g_idx
    return tensors


def decode(
    packing: Packing, name: str, scheme: LayerScheme, parts: Mapping[str, Tensor], order: Tensor | None = None
) -> QuantizedLinear:
    """Decode a layer from the tensors `qweight`, `qzeros` and `scales`, whose shapes `measure` has accepted.

    If the packing adds 1, a stored zero point of all ones wraps around to 0, as older GPTQ programs stored it.

    Args:
        packing: of the tensors.
        name: of the layer.
        scheme: of the layer.
        parts: tensors by the last part of their name.
        order: the group of each input from `own_order`.
    """
    bits = scheme.bits
    if packing.awq:
        ints = unpack_outputs(parts["qweight"], bits, packing.order)
    else:
        ints = unpack_inputs(parts["qweight"], bits)
    zeros = unpack_outputs(parts["qzeros"], bits, packing.order)
    if packing.zero_bias:
        zeros = (zeros + packing.zero_bias) & ((1 << bits) - 1)
    # contiguous() keeps the strides of a single column, of which no byte view can be taken.
    scales = parts["scales"].T.clone(memory_format=torch.contiguous_format)
    return QuantizedLinear(name, scheme, ints, scales, zeros, order)


def own_order(name: str, scheme: LayerScheme, g_idx: Tensor, in_features: int) -> Tensor | None:
    """Return a stored `g_idx` as int32 [in], or None if the groups are in natural order.

    Some programs store zeros only, as a placeholder for the natural order; engines read it the same way
    (text-generation-inference's exllamav2.py).

    Raises:
        ValueError: the groups are invalid.
    """
    if g_idx.shape == (in_features,) and not bool(g_idx.any()):
        return None
    check_groups(name, scheme, g_idx, in_features)
    order = g_idx.to(torch.int32)
    return None if torch.equal(order, natural_groups(scheme, in_features).to(order.device)) else order
