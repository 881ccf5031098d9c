"""Random models of every architecture of the native program, as checkpoints and as programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from core.formats.opened import open_checkpoint
from core.inference.loader import open_tree
from core.inference.native import library
from core.inference.runners import native
from core.inference.runners.native import NativeRunner
from core.model.skeleton import Skeleton, build_skeleton

SMALL: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WINDOW: dict[str, Any] = {"sliding_window": 24, "head_dim": 32}
THETA: dict[str, Any] = {"rope_theta": 10000.0}
LONGROPE: dict[str, Any] = {
    "rope_parameters": THETA
    | {
        "rope_type": "longrope",
        "short_factor": [1.0 + number / 8 for number in range(8)],
        "long_factor": [2.0 + number for number in range(8)],
    }
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama with biases, tied": ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "llama with exact gelu": ("llama", {"hidden_act": "gelu"}),
    "llama3 rope": (
        "llama",
        {
            "rope_parameters": THETA
            | {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
    ),
    "yarn rope": (
        "llama",
        {"rope_parameters": THETA | {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}},
    ),
    "mistral": ("mistral", WINDOW),
    "qwen2": ("qwen2", {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1}),
    "qwen3": ("qwen3", {"head_dim": 32}),
    "gemma": ("gemma", {"head_dim": 32, "num_key_value_heads": 1}),
    "gemma2": ("gemma2", WINDOW | {"query_pre_attn_scalar": 24}),
    "gemma3": (
        "gemma3_text",
        WINDOW
        | {"query_pre_attn_scalar": 24, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    ),
    "phi3": ("phi3", {"rope_parameters": THETA | {"rope_type": "default", "partial_rotary_factor": 0.5}}),
    "longrope, a short text": ("phi3", LONGROPE | {"original_max_position_embeddings": 160}),
    "longrope, a long text": ("phi3", LONGROPE | {"original_max_position_embeddings": 64}),
    "dynamic rope": ("llama", {"rope_parameters": THETA | {"rope_type": "dynamic", "factor": 2.0}}),
    "smollm3": ("smollm3", {"num_hidden_layers": 5}),
    "olmo2": ("olmo2", {}),
    "granite": (
        "granite",
        {
            "embedding_multiplier": 3.0,
            "residual_multiplier": 0.4,
            "attention_multiplier": 0.3,
            "logits_scaling": 5.0,
        },
    ),
}
TEXT = [int(token) for token in torch.randint(3, 300, (150,), generator=torch.Generator().manual_seed(5))]


@pytest.fixture(scope="session")
def kernels() -> Any:
    """Return the compiled kernels; skip tests if they cannot be compiled."""
    why = library.why_not()
    if why:
        pytest.skip(why)
    return library.load()


def make(name: str, folder: Path, **more: Any) -> Any:
    """Write one of `MODELS` to a folder in float32 and return the transformers model."""
    torch.manual_seed(0)
    kind, changes = MODELS[name]
    config = AutoConfig.for_model(kind, **{**SMALL, **changes, **more})
    # sdpa leaves out the soft cap of Gemma 2
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.1 if parameter.dim() > 1 else 0.2))
    model.save_pretrained(folder)
    return model


def skeleton_of(folder: Path) -> Skeleton:
    """Return the skeleton that the loader passes to a program."""
    checkpoint = open_checkpoint(folder, lambda: False)
    return build_skeleton(open_tree(checkpoint), checkpoint.store)


def load(folder: Path, context: int = 256, **options: Any) -> NativeRunner:
    """Return the program of a folder, with a float32 cache."""
    checkpoint = open_checkpoint(folder, lambda: False)
    skeleton = build_skeleton(open_tree(checkpoint), checkpoint.store)
    assert native.refusal(skeleton) == ""
    return native.build(checkpoint, skeleton, context, **{"threads": 2, "dtype": torch.float32, **options})


def logits_of(model: Any, ids: list[int]) -> torch.Tensor:
    """Return the logits of transformers, float32 [tokens, vocabulary]."""
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()
    return logits
