"""Values that follow from a model's config, in one formula each: head_dim, attention scale, sliding layers.

All functions take the config of the language model as config.json has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.model.architectures.table import Architecture


def complete(architecture: Architecture, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with the keys that it omits, or has as null, filled in as transformers does."""
    full = {**architecture.defaults, **config}
    heads = full.get("num_attention_heads")
    if full.get("num_key_value_heads") is None:
        full["num_key_value_heads"] = heads
    if full.get("head_dim") is None and isinstance(heads, int) and isinstance(full.get("hidden_size"), int) and heads:
        full["head_dim"] = head_dim(full)
    return full


def head_dim(config: Mapping[str, Any]) -> int:
    """Return the size of an attention head: `head_dim` if the config has it, else hidden_size / heads."""
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def num_kv_heads(config: Mapping[str, Any]) -> int:
    """Return the number of key-value heads; without the key each query head has its own."""
    return int(config.get("num_key_value_heads") or config["num_attention_heads"])


def activation(config: Mapping[str, Any]) -> str | None:
    """Return the activation function of the feed-forward layers, or None if the config has none."""
    return config.get("hidden_activation") or config.get("hidden_act")


def attention_scale(architecture: Architecture, config: Mapping[str, Any]) -> float:
    """Return the factor of the products of queries and keys."""
    if architecture.multipliers:
        return float(config["attention_multiplier"])
    if architecture.query_pre_attn_scalar:
        return float(config["query_pre_attn_scalar"]) ** -0.5
    return float(head_dim(config)) ** -0.5


def gguf_query_scalar(architecture: Architecture, config: Mapping[str, Any], blocks: int | None) -> int:
    """Return the `query_pre_attn_scalar` that llama.cpp uses for a model with that many blocks."""
    if architecture.gguf and architecture.gguf.largest == blocks:
        return int(config["hidden_size"] // config["num_attention_heads"])
    return head_dim(config)


def softcap(architecture: Architecture, config: Mapping[str, Any], key: str) -> float:
    """Return a logit softcap, or 0 if there is none. Architectures that do not apply it may have the key."""
    return float(config.get(key) or 0) if key in architecture.softcaps else 0.0


def multiplier(architecture: Architecture, config: Mapping[str, Any], key: str) -> float:
    """Return one of Granite's multipliers; 1 for other architectures, which may have the key and ignore it."""
    return float(config.get(key) or 1) if architecture.multipliers else 1.0


def sliding_layers(architecture: Architecture, config: Mapping[str, Any], blocks: int) -> list[bool]:
    """Return for each block whether its attention is limited to the sliding window."""
    if not architecture.sliding_window or not config.get("sliding_window") or config.get("use_sliding_window") is False:
        return [False] * blocks
    kinds = config.get("layer_types")
    if isinstance(kinds, list) and len(kinds) == blocks:
        return [kind == "sliding_attention" for kind in kinds]
    return sliding_pattern(config.get("sliding_window_pattern") or architecture.full_attention_every, blocks)


def sliding_pattern(full_attention_every: int, blocks: int) -> list[bool]:
    """Return for each block whether it slides, if each n-th one does not; 0 if all do."""
    return [not full_attention_every or (block + 1) % full_attention_every != 0 for block in range(blocks)]
