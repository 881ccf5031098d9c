"""Headers of Llama checkpoints of any size, without weights and without torch."""

from __future__ import annotations

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
    table = {"model.embed_tokens": (VOCABULARY, WIDTH)}
    table |= {f"model.layers.{block}.{kind}": shape for block in range(blocks) for kind, shape in shapes.items()}
    if not tied:
        table["lm_head"] = (VOCABULARY, WIDTH)
    tensors: dict[str, TensorInfo] = {}
    start = 1000
    for name, (rows, columns) in table.items():
        end = start + 2 * rows * columns
        tensors[f"{name}.weight"] = TensorInfo(
            f"{name}.weight", "BF16", (rows, columns), "model.safetensors", start, end
        )
        start = end
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "num_hidden_layers": blocks,
        "tie_word_embeddings": tied,
    }
    return build_tree(config, tensors)
