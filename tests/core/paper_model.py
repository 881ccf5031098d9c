"""Headers of Llama and Qwen3-MoE checkpoints of any size, without weights and without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from core.model.headers import TensorInfo
from core.model.tree import ModelTree, build_tree

WIDTH, INNER, VOCABULARY = 576, 1536, 49152
SHAPES = {
    "mlp.down_proj": (WIDTH, INNER),
    "mlp.gate_proj": (INNER, WIDTH),
    "mlp.up_proj": (INNER, WIDTH),
    "self_attn.k_proj": (WIDTH // 3, WIDTH),
    "self_attn.o_proj": (WIDTH, WIDTH),
    "self_attn.q_proj": (WIDTH, WIDTH),
    "self_attn.v_proj": (WIDTH // 3, WIDTH),
}
"""Tensors of a block of SmolLM2-135M, sorted by name as in checkpoints."""


def llama(blocks: int, *, tied: bool = True, shapes: Mapping[str, tuple[int, int]] = SHAPES) -> ModelTree:
    """The tree of a Llama with so many blocks."""
    table: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, WIDTH)}
    table |= {f"model.layers.{block}.{kind}.weight": shape for block in range(blocks) for kind, shape in shapes.items()}
    if not tied:
        table["lm_head.weight"] = (VOCABULARY, WIDTH)
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "num_hidden_layers": blocks,
        "tie_word_embeddings": tied,
    }
    return build_tree(config, tensors_of(table))


def seeing(blocks: int) -> ModelTree:
    """The tree of a vision-language model: a Llama with so many blocks, a vision tower and a projector."""
    table: dict[str, tuple[int, ...]] = {
        "model.vision_tower.patch_embedding.weight": (1024, 588),
        "model.vision_tower.encoder.layers.0.mlp.fc1.weight": (4096, 1024),
        "model.multi_modal_projector.linear.weight": (WIDTH, 1024),
        "model.language_model.embed_tokens.weight": (VOCABULARY, WIDTH),
    }
    table |= {
        f"model.language_model.layers.{block}.{kind}.weight": shape
        for block in range(blocks)
        for kind, shape in SHAPES.items()
    }
    text = {"model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": blocks}
    config: dict[str, Any] = {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "text_config": text,
        "vision_config": {"hidden_size": 1024},
    }
    return build_tree(config, tensors_of(table))


def mixture(
    blocks: int,
    experts: int,
    *,
    fused: bool = True,
    hidden: int = 64,
    intermediate: int = 32,
    per_token: int = 2,
    vocabulary: int = 320,
    attention: int = 64,
) -> ModelTree:
    """The tree of a Qwen3-MoE, with its experts in tensors of their own or in one tensor per block.

    Args:
        intermediate: of an expert.
        attention: outputs of the query projection.
    """
    return build_tree(*mixture_parts(blocks, experts, fused, hidden, intermediate, per_token, vocabulary, attention))


def mixture_parts(
    blocks: int,
    experts: int,
    fused: bool,
    hidden: int,
    intermediate: int,
    per_token: int,
    vocabulary: int,
    attention: int,
) -> tuple[dict[str, Any], dict[str, TensorInfo]]:
    """The config and the tensors of `mixture`."""
    table: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for block in range(blocks):
        start = f"model.layers.{block}"
        table |= {f"{start}.self_attn.{kind}_proj.weight": (attention, hidden) for kind in "qkv"}
        table |= {
            f"{start}.self_attn.o_proj.weight": (hidden, attention),
            f"{start}.mlp.gate.weight": (experts, hidden),
        }
        if fused:
            table[f"{start}.mlp.experts.gate_up_proj"] = (experts, 2 * intermediate, hidden)
            table[f"{start}.mlp.experts.down_proj"] = (experts, hidden, intermediate)
        for expert in range(0 if fused else experts):
            of = f"{start}.mlp.experts.{expert}"
            table |= {f"{of}.{kind}_proj.weight": (intermediate, hidden) for kind in ("gate", "up")}
            table[f"{of}.down_proj.weight"] = (hidden, intermediate)
    table["lm_head.weight"] = (vocabulary, hidden)
    config: dict[str, Any] = {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "moe_intermediate_size": intermediate,
        "num_experts": experts,
        "num_experts_per_tok": per_token,
        "num_hidden_layers": blocks,
        "num_attention_heads": 2,
    }
    return config, tensors_of(table)


def tensors_of(table: Mapping[str, tuple[int, ...]]) -> dict[str, TensorInfo]:
    """The tensor table of names and shapes, in 16 bits, as of one file."""
    tensors: dict[str, TensorInfo] = {}
    start = 1000
    for name, shape in table.items():
        end = start + 2 * math.prod(shape)
        tensors[name] = TensorInfo(name, "BF16", shape, "model.safetensors", start, end)
        start = end
    return tensors
