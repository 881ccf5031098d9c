"""The output formats by name, and what an output of one of them consists of, before anything is written.

`plan` says in preflight whether a format can hold a map and, if so, every tensor of the output with its shape,
so that sizes are known and files can be laid out. Knows no bit of a packing and no key of a config.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from core.errors import BadInput, UnsupportedModel
from core.formats import auto_round, gptq
from core.formats.config_names import Layout, ModuleName, lay_out
from core.formats.layout import TensorPlan, encode, planned
from core.formats.packing import GPTQ, Packing
from core.formats.quantized import QuantizedLinear
from core.model.tree import LayerPlan, ModelTree
from core.schemes import PACK_UNIT

__all__ = ["FORMATS", "FormatPlan", "TensorPlan", "plan"]

FORMATS = ("auto_round", "auto_gptq")


@dataclass(frozen=True)
class FormatPlan:
    """One output in one format.

    Attributes:
        name: of the format.
        packing: how quantized layers lie in the file.
        tensors: every tensor of the output: those of a quantized layer in place of its weight, all others as the
            checkpoint has them, in its order.
        copied: names of the tensors that go over byte for byte.
        layers: the quantized linears by name.
        min_zero: the smallest zero point that the format stores; asymmetric rounding must keep to it.
        config_file: beside config.json, the file that some programs look for the same settings in.
        unties: the head was the embedding in the source and is a quantized layer of its own here.
    """

    name: str
    packing: Packing
    tensors: list[TensorPlan]
    copied: list[str]
    layers: Mapping[str, LayerPlan]
    min_zero: int
    config_file: str
    settings: Mapping[str, Any]
    unties: bool = False

    def encode(self, layer: QuantizedLinear) -> dict[str, Tensor]:
        """The planned tensors of one quantized linear, by name.

        Raises:
            ValueError: it is not the layer that was planned, or holds values that the format cannot.
        """
        expected = self.layers[layer.name]
        shape = (expected.linear.out_features, expected.linear.in_features)
        if layer.scheme != expected.scheme or tuple(layer.ints.shape) != shape:
            raise ValueError(f"{layer.name} was planned as {expected.scheme.label()} {shape}")
        return encode(self.packing, layer)

    def config(self) -> dict[str, Any]:
        """The `quantization_config`, fresh at each call."""
        return copy.deepcopy(dict(self.settings))

    def model_config(self, source: Mapping[str, Any]) -> dict[str, Any]:
        """The whole config.json, from the source's own."""
        config = copy.deepcopy(dict(source))
        if self.unties:
            # Nested configs say it for the language model; readers look at either.
            for part in (config, config.get("text_config")):
                if isinstance(part, dict):
                    part["tie_word_embeddings"] = False
        return {**config, "quantization_config": self.config()}


def plan(
    name: str,
    tree: ModelTree,
    plans: Sequence[LayerPlan],
    source_config: Mapping[str, Any],
    module_name: ModuleName = str,
) -> FormatPlan:
    """What the format called `name` makes of a model and its resolved map.

    Args:
        name: one of `FORMATS`.
        tree: the source checkpoint.
        plans: one for each linear of the tree.
        source_config: the source's config.json.
        module_name: from a linear's name in the checkpoint to its module's name in the transformers model, which
            is what readers match; the same by default.

    Raises:
        BadInput: an unknown format, nothing to quantize, or a layer that no format here can hold.
        UnsupportedModel: the source is quantized already.
    """
    if name not in FORMATS:
        raise BadInput(f"There is no output format {name!r}.", f"Choose from {', '.join(FORMATS)}.")
    if source_config.get("quantization_config"):
        raise UnsupportedModel("The source model is quantized already.", "Choose the original model.")
    quantized = {item.linear.name: item for item in plans if item.scheme.quantized}
    for item in quantized.values():
        _check(item, tree)
    layout = lay_out(plans, module_name)
    packing = GPTQ if name == "auto_gptq" else auto_round.choose_packing(layout)
    tensors, copied = _tensors(tree, quantized, packing)
    asymmetric = any(not scheme.sym for scheme in layout.schemes)
    return FormatPlan(
        name=name,
        packing=packing,
        tensors=tensors,
        copied=copied,
        layers=quantized,
        min_zero=packing.zero_bias if asymmetric else 0,
        config_file=gptq.CONFIG_FILE if name == "auto_gptq" else auto_round.CONFIG_FILE,
        settings=_settings(name, layout, packing),
        unties=tree.tied and bool(layout.head),
    )


def _settings(name: str, layout: Layout, packing: Packing) -> dict[str, Any]:
    return gptq.settings(layout) if name == "auto_gptq" else auto_round.settings(layout, packing)


def _check(item: LayerPlan, tree: ModelTree) -> None:
    linear, scheme = item.linear, item.scheme
    if tree.weight_of(linear) not in tree.tensors:
        raise BadInput(f"{linear.name} has no weight of its own in the checkpoint.", "Leave it in 16 bits.")
    if linear.in_features % PACK_UNIT or linear.out_features % PACK_UNIT:
        raise BadInput(
            f"{linear.name} is {linear.out_features}x{linear.in_features}, and packed words need multiples of 32.",
            "Leave it in 16 bits.",
        )
    if linear.in_features % scheme.group_of(linear.in_features):
        raise BadInput(
            f"The group size {scheme.group_size} does not divide the {linear.in_features} inputs of {linear.name}.",
            "Choose 32 or 64 for it.",
        )


def _tensors(
    tree: ModelTree, quantized: Mapping[str, LayerPlan], packing: Packing
) -> tuple[list[TensorPlan], list[str]]:
    tensors: list[TensorPlan] = []
    copied: list[str] = []
    for info in tree.tensors.values():
        item = quantized.get(info.name.removesuffix(".weight")) if info.name.endswith(".weight") else None
        if item is None:
            tensors.append(TensorPlan(info.name, info.dtype, info.shape))
            copied.append(info.name)
        else:
            tensors += _planned(packing, item)
    new = [item for item in quantized.values() if f"{item.linear.name}.weight" not in tree.tensors]
    return tensors + [tensor for item in new for tensor in _planned(packing, item)], copied


def _planned(packing: Packing, item: LayerPlan) -> list[TensorPlan]:
    linear = item.linear
    return planned(packing, linear.name, item.scheme, linear.in_features, linear.out_features)
