"""Values that follow from a model's config."""

from __future__ import annotations

from typing import Any

import pytest
import transformers

from core.model.architectures.config import attention_scale, complete, sliding_layers, softcap
from core.model.architectures.table import ARCHITECTURES, SOFTCAPS

CONFIGS = {
    "llama": "LlamaConfig", "mistral": "MistralConfig", "qwen2": "Qwen2Config", "qwen3": "Qwen3Config",
    "gemma": "GemmaConfig", "gemma2": "Gemma2Config", "gemma3_text": "Gemma3TextConfig", "phi3": "Phi3Config",
}  # fmt: skip


@pytest.mark.parametrize("model_type", CONFIGS)
def test_defaults_are_those_of_transformers(model_type: str) -> None:
    """A config with as few keys as possible is read as transformers reads it."""
    theirs = getattr(transformers, CONFIGS[model_type])()
    architecture = ARCHITECTURES[model_type]
    sizes = {"num_attention_heads": theirs.num_attention_heads, "hidden_size": theirs.hidden_size}
    full = complete(architecture, {"model_type": model_type, **sizes})
    for key, value in architecture.defaults.items():
        if key in ("rope_theta", "rope_local_base_freq"):
            rope = theirs.rope_parameters
            part = rope.get("sliding_attention" if "local" in key else "full_attention", rope)
            assert part["rope_theta"] == value
        else:
            assert getattr(theirs, key) == full[key]
    assert full["num_key_value_heads"] == theirs.num_key_value_heads
    assert full["head_dim"] == (getattr(theirs, "head_dim", None) or theirs.hidden_size // theirs.num_attention_heads)


def test_every_architecture_with_defaults_is_compared() -> None:
    assert set(CONFIGS) == {name for name, entry in ARCHITECTURES.items() if entry.defaults}


def test_a_null_in_the_config_is_no_default() -> None:
    config = {"hidden_size": 64, "num_attention_heads": 4, "head_dim": None, "sliding_window": None}
    full = complete(ARCHITECTURES["mistral"], config)
    assert full["head_dim"] == 16
    assert full["sliding_window"] is None


@pytest.mark.parametrize(
    ("model_type", "config", "expected"),
    [
        ("gemma2", {}, [True, False, True]),
        ("gemma3_text", {}, [True, True, True]),
        ("gemma3_text", {"sliding_window_pattern": 3}, [True, True, False]),
        (
            "gemma2",
            {"layer_types": ["full_attention", "sliding_attention", "full_attention"]},
            [False, True, False],
        ),
        ("gemma2", {"sliding_window": None}, [False, False, False]),
        ("mistral", {}, [True, True, True]),
        ("qwen2", {"use_sliding_window": False}, [False, False, False]),
        ("llama", {}, [False, False, False]),
    ],
)
def test_sliding_layers(model_type: str, config: dict[str, Any], expected: list[bool]) -> None:
    assert sliding_layers(ARCHITECTURES[model_type], {"sliding_window": 8, **config}, 3) == expected


def test_attention_is_scaled_by_what_the_architecture_uses() -> None:
    config = {"head_dim": 16, "query_pre_attn_scalar": 64, "attention_multiplier": 0.5}
    found = {name: attention_scale(ARCHITECTURES[name], config) for name in ("llama", "gemma2", "granite")}
    assert found == {"llama": 0.25, "gemma2": 0.125, "granite": 0.5}


def test_a_softcap_that_the_architecture_ignores_is_none() -> None:
    config = dict.fromkeys(SOFTCAPS, 30.0)
    found = {name: [softcap(ARCHITECTURES[name], config, key) for key in SOFTCAPS] for name in ("llama", "gemma3_text")}
    assert found == {"llama": [0.0, 0.0], "gemma3_text": [0.0, 30.0]}
