"""Tests of every architecture of the native program against transformers, and of unsupported ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from core.inference.native.model_spec import model_spec, refusal
from core.model.tree import Linear, ModelTree, build_tree
from tests.core.inference.native.tiny_models import MODELS, SMALL, TEXT, kernels, load, logits_of, make, skeleton_of
from tests.core.tiny_architectures import make_config

__all__ = ["kernels"]
EXACT = 1e-4
"""Logits are around 4, and sums of a few hundred products in another order differ by less."""


@pytest.fixture(scope="module", params=list(MODELS))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, kernels: Any) -> tuple[Any, Any]:
    """Return the transformers model and the program of its checkpoint."""
    folder = tmp_path_factory.mktemp("checkpoint")
    return make(request.param, folder), load(folder)


def test_logits_are_those_of_transformers(pair: tuple[Any, Any]) -> None:
    model, runner = pair
    assert torch.allclose(runner.logits(TEXT), logits_of(model, TEXT), rtol=0, atol=EXACT)


def test_token_by_token_gives_the_same(pair: tuple[Any, Any]) -> None:
    model, runner = pair
    runner.truncate(0)
    runner.extend(TEXT[:70])
    found = torch.stack([runner.extend([token]) for token in TEXT[70:]])
    assert torch.allclose(found, logits_of(model, TEXT)[70:], rtol=0, atol=EXACT)


def test_what_was_cut_off_leaves_nothing_behind(pair: tuple[Any, Any]) -> None:
    model, runner = pair
    other = [*TEXT[:37], *reversed(TEXT)]
    runner.truncate(0)
    runner.extend(TEXT)
    runner.truncate(37)
    assert torch.allclose(runner.extend(other[37:]), logits_of(model, other)[-1], rtol=0, atol=EXACT)


@pytest.fixture
def llama(tmp_path: Path) -> tuple[dict[str, Any], ModelTree]:
    """Return config and tree of a supported model."""
    make("llama", tmp_path / "model")
    skeleton = skeleton_of(tmp_path / "model")
    return skeleton.model.config.to_dict(), skeleton.tree


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model_type": "gpt2"}, "architecture 'gpt2'"),
        ({"hidden_act": "relu"}, "activation 'relu'"),
        ({"head_dim": 24}, "heads of 24 components"),
        ({"num_attention_heads": 6, "num_key_value_heads": 4, "head_dim": 16}, "6 attention heads"),
        ({"rope_parameters": {"rope_type": "axial", "rope_theta": 1e4}}, "of the type 'axial'"),
        ({"use_bidirectional_attention": True}, "bidirectional"),
    ],
)
def test_what_it_does_not_know_is_said(
    llama: tuple[dict[str, Any], ModelTree], changes: dict[str, Any], sentence: str
) -> None:
    config = {**AutoConfig.for_model("llama", **SMALL).to_dict(), **changes}
    assert sentence in refusal(config, llama[1])


def test_a_model_that_it_knows_is_not_refused(llama: tuple[dict[str, Any], ModelTree]) -> None:
    assert refusal(*llama) == ""


def test_a_tensor_without_a_place_is_named(llama: tuple[dict[str, Any], ModelTree]) -> None:
    config, tree = llama
    name = "model.layers.1.self_attn.sinks"
    tensors = {**tree.tensors, name: replace(next(iter(tree.tensors.values())), name=name)}
    assert name in refusal(config, replace(tree, tensors=tensors))


def test_a_tensor_that_is_missing_is_named(llama: tuple[dict[str, Any], ModelTree]) -> None:
    config, tree = llama
    name = "model.layers.2.mlp.up_proj.weight"
    tensors = {key: value for key, value in tree.tensors.items() if key != name}
    assert name in refusal(config, replace(tree, tensors=tensors))


def test_inputs_that_do_not_fit_the_kernels_are_refused(llama: tuple[dict[str, Any], ModelTree]) -> None:
    config, tree = llama
    narrow: list[Linear] = [replace(linear, in_features=40) for linear in tree.linears]
    assert "40 inputs" in refusal(config, replace(tree, linears=tuple(narrow)))


def test_factors_of_one_family_are_ignored_in_others() -> None:
    """A config may contain any key, which transformers ignores too."""
    extra = {"embedding_multiplier": 3.0, "residual_multiplier": 0.5, "logits_scaling": 4.0}
    config = AutoConfig.for_model("llama", **extra, final_logit_softcapping=5.0)
    assert model_spec(config.to_dict()) == model_spec(AutoConfig.for_model("llama").to_dict())


@pytest.mark.parametrize(
    "name", ["qwen3_moe", "mixtral", "gpt_oss", "granitemoe", "deepseek_v3", "qwen3_5_text", "granitemoehybrid", "lfm2"]
)
def test_mixtures_and_hybrids_are_refused(name: str) -> None:
    assert "does not support the architecture" in refusal(make_config(name).to_dict(), build_tree({}, {}))
