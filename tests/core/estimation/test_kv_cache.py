"""Size of the cache of a conversation for models with several kinds of blocks."""

from __future__ import annotations

from typing import Any

import pytest

from core.estimation.kv_cache import cache_bytes
from core.model.tree import ModelTree, build_tree
from tests.core.paper_model import tensors_of

HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "hidden_size": 64}
CHANNELS = 2 * 2 * 16
"""Numbers that a block with attention stores for a token."""


def model(blocks: list[str], **config: Any) -> ModelTree:
    """A model with blocks of attention (`a`), Gated DeltaNet (`d`), Mamba (`m`) or convolution (`c`)."""
    tensors: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (320, 64)}
    for number, kinds in enumerate(blocks):
        start = f"model.layers.{number}."
        tensors[f"{start}mlp.down_proj.weight"] = (64, 128)
        for kind in kinds:
            if kind == "a":
                tensors |= {f"{start}self_attn.{name}_proj.weight": (32, 64) for name in "kv"}
            elif kind == "d":
                tensors |= {f"{start}linear_attn.k_proj.weight": (32, 64), f"{start}linear_attn.A_log": (4,)}
            elif kind == "m":
                tensors |= {f"{start}mamba.in_proj.weight": (256, 64), f"{start}mamba.A_log": (8,)}
            else:
                tensors[f"{start}conv.in_proj.weight"] = (192, 64)
    values = {"model_type": "a type", "vocab_size": 320, "num_hidden_layers": len(blocks), **HEADS, **config}
    return build_tree(values, tensors_of(tensors))


@pytest.mark.parametrize(
    ("blocks", "attention"), [(["a", "a"], 2), (["d", "d", "d", "a"], 1), (["m", "a", "m"], 1), (["c", "a"], 1)]
)
def test_only_blocks_with_attention_store_keys_and_values(blocks: list[str], attention: int) -> None:
    assert cache_bytes(model(blocks), 100) == 2 * CHANNELS * 100 * attention


def test_attention_beside_a_recurrent_layer_stores_keys_and_the_state() -> None:
    tree = model(["am", "am"], mamba_n_heads=8, mamba_d_head=16, mamba_d_state=32)
    assert cache_bytes(tree, 100) == 2 * (2 * CHANNELS * 100 + 4 * 8 * 16 * 32)


def test_the_config_decides_about_the_kinds_of_blocks() -> None:
    kinds = ["sliding_attention", "full_attention", "linear_attention"]
    tree = model(["a", "a", "a"], layer_types=kinds, sliding_window=30)
    assert cache_bytes(tree, 100) == 2 * CHANNELS * (30 + 100)
    assert cache_bytes(tree, 20) == 2 * CHANNELS * (20 + 20)


def test_blocks_that_use_the_keys_of_earlier_blocks_store_none() -> None:
    assert cache_bytes(model(["a"] * 4, num_kv_shared_layers=3), 100) == 2 * CHANNELS * 100


def test_latent_attention_stores_the_latent_vector_and_the_rotary_key() -> None:
    assert cache_bytes(model(["a"] * 2, kv_lora_rank=32, qk_rope_head_dim=8), 100) == 2 * 2 * (32 + 8) * 100


def test_unknown_names_of_layers_count_as_attention() -> None:
    assert cache_bytes(model(["c", "c"]), 100) == 2 * 2 * CHANNELS * 100
