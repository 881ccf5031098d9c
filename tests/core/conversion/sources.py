"""Quantized tiny models in any format, made by round-to-nearest and written as a run writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from core.bitsmap import BitsMap
from core.control import never
from core.formats.gguf.rounding import round_to
from core.formats.grids import plan_layers
from core.formats.opened import open_checkpoint
from core.formats.quantized import QuantizedLinear
from core.formats.registry import plan
from core.formats.stored import StoredLayer
from core.model.weights import TensorStore
from core.schemes import LayerScheme
from tests.core.formats.tiny import bits_map, open_tree, round_to_nearest
from tests.core.tiny_model import CONFIG, save_model

UP = "model.layers.1.mlp.up_proj"
DOWN = "model.layers.1.mlp.down_proj"


def save_original(place: Path, *, wide: bool = False, head: bool = False) -> Path:
    """Save the tiny model; `wide` has rows of 256 for K-quants, `head` has an untied output head."""
    folder = save_model(place)
    if not wide and not head:
        return folder
    tensors = load_file(folder / "model.safetensors")
    config = dict(CONFIG)
    generator = torch.Generator().manual_seed(5)
    if wide:
        config |= {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 1}
        tensors = {name: value for name, value in tensors.items() if "layers.1." not in name}
        for name, value in tensors.items():
            longer = [{64: 256, 32: 128, 96: 512}.get(length, length) for length in value.shape]
            tensors[name] = (torch.randn(longer, generator=generator) / 16).to(torch.bfloat16)
    if head:
        config["tie_word_embeddings"] = False
        shape = tensors["model.embed_tokens.weight"].shape
        tensors["lm_head.weight"] = (torch.randn(shape, generator=generator) / 8).to(torch.bfloat16)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def make(
    original: Path,
    folder: Path,
    format_name: str,
    default: LayerScheme | None = None,
    layers: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    act_order: bool = False,
) -> Path:
    """A quantized model in a new folder, from a saved original.

    Args:
        default, layers: the bits map.
        act_order: the quantized layers have act-order (GPTQ's `desc_act`).
    """
    tree = open_tree(original)
    chosen: BitsMap = bits_map(default or LayerScheme(4, 32), layers)
    plans = plan_layers(tree, chosen, (format_name,))
    target = plan(format_name, tree, plans, tree.config, str, original, "tiny", act_order=act_order)
    weights = load_file(original / "model.safetensors")
    folder.mkdir(parents=True)
    writer = target.writer(folder)
    for item in plans:
        if not item.scheme.quantized:
            continue
        name, weight = item.linear.name, weights[tree.weight_of(item.linear)].float()
        layer: StoredLayer
        if item.scheme.type:
            layer = round_to(weight, item.scheme.type, None, name)
        else:
            layer = round_to_nearest(name, weight, item.scheme, target.min_zero)
            layer = with_act_order(layer) if act_order else layer
        writer.write(target.stored(layer))
    writer.begin(original)
    writer.finish(TensorStore(original), never)
    return folder


def with_act_order(layer: QuantizedLinear) -> QuantizedLinear:
    """The same integers with their inputs dealt out to the groups at random."""
    size = layer.scheme.group_of(layer.in_features)
    order = torch.randperm(layer.in_features, generator=torch.Generator().manual_seed(1))
    groups = torch.empty(layer.in_features, dtype=torch.int32)
    groups[order] = torch.arange(layer.in_features, dtype=torch.int32) // size
    return QuantizedLinear(layer.name, layer.scheme, layer.ints, layer.scales, layer.zeros, groups)


def all_weights(path: Path) -> dict[str, torch.Tensor]:
    """Return every tensor of a model as float32, dequantized if necessary, by name."""
    checkpoint = open_checkpoint(path)
    found = {name: checkpoint.store.get(name).float() for name in checkpoint.plain}
    return found | {f"{name}.weight": checkpoint.layer(name).dequantize() for name in checkpoint.schemes}


def same_weights(left: Path, right: Path) -> bool:
    """Return whether two models have the same tensors with equal values."""
    one, other = all_weights(left), all_weights(right)
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)
