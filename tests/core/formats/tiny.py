"""Small checkpoints for the format tests: a random source, round-to-nearest, and an output written as by a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from core.bitsmap import BitsMap, Rule
from core.formats.packed import PackedPlan
from core.formats.quantized import QuantizedLinear
from core.formats.registry import plan_packed
from core.model.headers import read_folder
from core.model.plans import Plans
from core.model.tree import ModelTree, build_tree, resolve_schemes
from core.model.weights import TensorStore, read_linear
from core.model.writer import CheckpointWriter
from core.schemes import LayerScheme

LLAMA_KINDS = {
    "self_attn.q_proj": (64, 64),
    "self_attn.k_proj": (32, 64),
    "self_attn.v_proj": (32, 64),
    "self_attn.o_proj": (64, 64),
    "mlp.gate_proj": (96, 64),
    "mlp.up_proj": (96, 64),
    "mlp.down_proj": (64, 96),
}
LLAMA_CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 128,
    "num_hidden_layers": 2,
    "tie_word_embeddings": False,
}


@dataclass(frozen=True)
class Output:
    """A written output and its layers."""

    folder: Path
    plan: PackedPlan
    layers: dict[str, QuantizedLinear]


def llama_tensors(blocks: int = 2, prefix: str = "model.layers") -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(torch.bfloat16)

    tensors = {"model.embed_tokens.weight": random(128, 64)}
    for block in range(blocks):
        tensors |= {f"{prefix}.{block}.{kind}.weight": random(*shape) for kind, shape in LLAMA_KINDS.items()}
        tensors[f"{prefix}.{block}.self_attn.q_proj.bias"] = random(64)
        tensors[f"{prefix}.{block}.input_layernorm.weight"] = random(64)
    return tensors | {"model.norm.weight": random(64), "lm_head.weight": random(128, 64)}


def save_source(folder: Path, tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def open_tree(folder: Path) -> ModelTree:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return build_tree(config, read_folder(folder))


def bits_map(default: LayerScheme, layers: Mapping[str, Mapping[str, Any]] | None = None, *rules: Rule) -> BitsMap:
    return BitsMap(default, tuple(rules), tuple(Rule(name, **keys) for name, keys in (layers or {}).items()))


def plan_for(
    tree: ModelTree, name: str, chosen: BitsMap, module_name: Callable[[str], str] = str
) -> tuple[PackedPlan, Plans]:
    plans = resolve_schemes(tree, chosen)
    return plan_packed(name, tree, plans, tree.config, module_name), plans


def round_to_nearest(name: str, weight: torch.Tensor, scheme: LayerScheme, min_zero: int = 0) -> QuantizedLinear:
    """Round a weight [out, in] to nearest in the range of each group; symmetric schemes use the full signed range."""
    rows, columns = weight.shape
    grouped = weight.float().reshape(rows, scheme.groups(columns), scheme.group_of(columns))
    low, high = grouped.amin(-1).clamp(max=0), grouped.amax(-1).clamp(min=0)
    top = scheme.levels - 1
    if scheme.sym:
        middle = scheme.levels // 2
        scales = (torch.where(high > -low, -high, -low).neg() / -middle).to(torch.float16)
        scales = torch.where(scales.abs() < 1e-5, torch.full_like(scales, 1e-5), scales)
        zeros = torch.full_like(scales, middle)
    else:
        scales = ((high - low) / top).to(torch.float16).clamp(min=1e-5)
        zeros = (-low / scales.float()).round().clamp(min_zero, top)
    levels = (grouped / scales.float().unsqueeze(-1)).round() + zeros.float().unsqueeze(-1)
    ints = levels.clamp(0, top).reshape(rows, columns).to(torch.uint8)
    return QuantizedLinear(name, scheme, ints, scales, zeros.to(torch.uint8))


def write_output(
    source: Path,
    folder: Path,
    name: str,
    chosen: BitsMap,
    *,
    module_name: Callable[[str], str] = str,
    max_shard_bytes: int = 5 * 10**9,
) -> Output:
    """Quantize a saved source by round-to-nearest and write it as a run does."""
    tree = open_tree(source)
    target, plans = plan_for(tree, name, chosen, module_name)
    weights, store = load_file(source / "model.safetensors"), TensorStore(source)
    folder.mkdir(parents=True, exist_ok=True)
    layers = {}
    with CheckpointWriter(folder, target.tensors, max_shard_bytes) as writer:
        for item in plans:
            if not item.scheme.quantized:
                continue
            weight = read_linear(store, tree, item.linear)
            layer = round_to_nearest(item.linear.name, weight, item.scheme, target.min_zero)
            layers[layer.name] = layer
            for tensor_name, tensor in target.encode(layer).items():
                writer.write(tensor_name, tensor)
        for tensor_name in target.copied:
            data: Any = weights[tensor_name].contiguous().view(torch.uint8).numpy()
            writer.write_bytes(tensor_name, memoryview(data))
        for tensor_name in target.experts:
            writer.write(tensor_name, target.expert(tensor_name, store))
    config = target.model_config()
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return Output(folder, target, layers)
