"""The tensors that hold one quantized layer in a file: the way to and from `QuantizedLinear`.

Knows how integers are packed; nothing of configs, of files, or of which format wants which layout.
"""

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
    """The layer in tensors keyed `qweight`, `qzeros` and `scales`, whose shapes `measure` has accepted.

    A stored zero point of all ones wraps to 0 where 1 is added: that is how older GPTQ programs stored a 0.

    Args:
        order: the group of each input, as `own_order` gives it.
    """
    bits = scheme.bits
    if packing.awq:
        ints = unpack_outputs(parts["qweight"], bits, packing.order)
    else:
        ints = unpack_inputs(parts["qweight"], bits)
    zeros = unpack_outputs(parts["qzeros"], bits, packing.order)
    if packing.zero_bias:
        zeros = (zeros + packing.zero_bias) & ((1 << bits) - 1)
    # contiguous() leaves a single column with the strides of a row, whose bytes cannot be viewed.
    scales = parts["scales"].T.clone(memory_format=torch.contiguous_format)
    return QuantizedLinear(name, scheme, ints, scales, zeros, order)


def own_order(name: str, scheme: LayerScheme, g_idx: Tensor, in_features: int) -> Tensor | None:
    """A stored `g_idx` as int32 [in], or None where the groups follow each other.

    All zeros, though there are several groups, is a placeholder that some programs leave; engines take it for the
    natural order as well (text-generation-inference's exllamav2.py).

    Raises:
        ValueError: groups that cannot be.
    """
    if g_idx.shape == (in_features,) and not bool(g_idx.any()):
        return None
    check_groups(name, scheme, g_idx, in_features)
    order = g_idx.to(torch.int32)
    return None if torch.equal(order, natural_groups(scheme, in_features).to(order.device)) else order
