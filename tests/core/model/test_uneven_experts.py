"""Mixtures whose experts do not fit together are refused when the tree is built, with the name of the expert."""

from __future__ import annotations

from collections.abc import Mapping

from core.model.headers import TensorInfo
from core.model.tree import build_tree

PROJECTIONS = {"gate_proj": (96, 64), "up_proj": (96, 64), "down_proj": (64, 96)}
MATRICES = {
    f"model.layers.{block}.mlp.experts.{expert}.{name}.weight": shape
    for block in range(2)
    for expert in range(4)
    for name, shape in PROJECTIONS.items()
}


def refusal(matrices: Mapping[str, tuple[int, ...]], **config: int) -> str:
    shapes = {"model.embed_tokens.weight": (320, 64), **matrices}
    tensors = {name: TensorInfo(name, "BF16", shape, "a", 0, 0) for name, shape in shapes.items()}
    return build_tree({"model_type": "qwen3_moe", "vocab_size": 320, **config}, tensors).refusal


def without(end: str) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in MATRICES.items() if end not in name}


def test_equal_experts_are_accepted() -> None:
    assert not refusal(MATRICES, num_experts_per_tok=4)


def test_an_expert_without_a_projection_is_named() -> None:
    assert "no weight for model.layers.1.mlp.experts.2.up_proj," in refusal(without("layers.1.mlp.experts.2.up_proj"))


def test_the_last_expert_without_a_projection_is_named() -> None:
    assert "no weight for model.layers.1.mlp.experts.3.up_proj," in refusal(without("layers.1.mlp.experts.3.up_proj"))


def test_a_missing_expert_is_named() -> None:
    assert "no weight for model.layers.0.mlp.experts.2.gate_proj," in refusal(without("layers.0.mlp.experts.2."))


def test_an_expert_of_another_shape_is_named() -> None:
    matrices = {**MATRICES, "model.layers.1.mlp.experts.0.up_proj.weight": (80, 64)}
    assert "model.layers.1.mlp.experts.0.up_proj has the shape [80, 64]" in refusal(matrices)


def test_more_experts_per_token_than_experts_are_refused() -> None:
    assert "selects 5 experts" in refusal(MATRICES, num_experts_per_tok=5)


def test_a_mixture_with_experts_without_weights_is_accepted() -> None:
    assert not refusal(without("layers.1.mlp.experts.3.up_proj"), num_experts_per_tok=5, zero_expert_num=1)
