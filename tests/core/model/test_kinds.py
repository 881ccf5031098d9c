"""Encoders, halves of encoder-decoders and draft models are refused by their kind."""

from __future__ import annotations

from typing import Any

import pytest

from core.model.headers import TensorInfo
from core.model.tree import build_tree


def tree_of(**config: Any) -> str:
    names = ["embed_tokens.weight", "layers.0.self_attn.q_proj.weight", "layers.0.mlp.up_proj.weight"]
    tensors = {f"model.{name}": TensorInfo(f"model.{name}", "BF16", (64, 64), "m", 0, 8192) for name in names}
    return build_tree({"architectures": ["SomeModel"], "vocab_size": 64, **config}, tensors).refusal


@pytest.mark.parametrize(
    ("model_type", "kind"),
    [
        ("roberta", "an encoder (roberta)"),
        ("xlnet", "an encoder (xlnet)"),
        ("bart", "half of an encoder-decoder, its decoder (bart)"),
        ("gemma4_assistant", "a draft model"),
    ],
)
def test_other_kinds_of_models_are_refused_by_their_kind(model_type: str, kind: str) -> None:
    assert kind in tree_of(model_type=model_type)


def test_a_text_decoder_is_not_refused() -> None:
    assert tree_of(model_type="some") == ""
