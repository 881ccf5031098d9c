"""Tests of the RoPE settings in GGUF files."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from core.errors import UnsupportedModel
from core.formats.gguf.rope import RopeEntries, rope_entries
from core.model.architectures.config import complete
from core.model.architectures.table import ARCHITECTURES
from tests.core.formats.gguf import families

LLAMA = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "max_position_embeddings": 512}


def entries_of(config: dict[str, Any]) -> RopeEntries:
    architecture = ARCHITECTURES[config["model_type"]]
    return rope_entries(architecture, complete(architecture, config))


def said(config: dict[str, Any]) -> dict[str, Any]:
    return {entry.key: entry.value for entry in entries_of(config).entries}


def of_family(name: str) -> RopeEntries:
    return entries_of(dict(families.tree_of(name).config))


@pytest.mark.parametrize(
    "config",
    [
        {"rope_theta": 5e5},
        {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}},
        {"rope_theta": 5e5, "rope_scaling": None},
    ],
)
def test_old_and_new_configs_give_the_same_rope(config: dict[str, Any]) -> None:
    assert said(LLAMA | config) == {"rope.freq_base": 5e5, "rope.dimension_count": 16}


@pytest.mark.parametrize("key", ["type", "rope_type"])
def test_linear_scaling_has_its_factor(key: str) -> None:
    found = said(LLAMA | {"rope_scaling": {key: "linear", "factor": 4}})
    assert found["rope.scaling.type"] == "linear"
    assert found["rope.scaling.factor"] == 4.0


def test_llama_3_s_divisors_are_those_of_transformers() -> None:
    config = families.config_of("llama3")
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = config.rope_parameters["rope_theta"] ** (-torch.arange(0, config.head_dim, 2) / config.head_dim)
    found = of_family("llama3").tensors["rope_freqs.weight"]
    assert found == pytest.approx((plain / scaled).tolist(), rel=1e-6)
    assert len(set(found)) > 3


def test_gemma_3_has_a_second_base_for_sliding_blocks() -> None:
    found = {entry.key: entry.value for entry in of_family("gemma3").entries}
    assert (found["rope.freq_base"], found["rope.freq_base_swa"]) == (1e6, 1e4)


def test_gemma_3_s_old_config_says_the_same() -> None:
    config = {"model_type": "gemma3_text", "hidden_size": 64, "rope_theta": 1e6, "rope_local_base_freq": 1e4,
              "rope_scaling": {"rope_type": "linear", "factor": 8.0}}  # fmt: skip
    found = said(config)
    assert (found["rope.freq_base"], found["rope.freq_base_swa"], found["rope.scaling.factor"]) == (1e6, 1e4, 8.0)


def test_phi_3_s_two_sets_of_divisors_are_tensors() -> None:
    found = of_family("phi3-long")
    assert sorted(found.tensors) == ["rope_factors_long.weight", "rope_factors_short.weight"]
    assert found.tensors["rope_factors_long.weight"][1] == 3.0
    entries = {entry.key: entry.value for entry in found.entries}
    assert entries["rope.scaling.original_context_length"] == 256
    # sqrt(1 + ln(512 / 256) / ln(256)), transformers' attention factor
    assert entries["rope.scaling.attn_factor"] == pytest.approx((1 + 1 / 8) ** 0.5)
    assert "256 tokens" in found.notes[0]


def test_a_part_of_each_head_is_rotated() -> None:
    found = {entry.key: entry.value for entry in of_family("phi3-part").entries}
    assert found["rope.dimension_count"] == 12


@pytest.mark.parametrize("extra", [{"mscale": 1.0}, {"truncate": False}, {"attention_factor": 1.5}])
def test_yarn_with_other_settings_is_refused(extra: dict[str, Any]) -> None:
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
    assert said(LLAMA | {"rope_scaling": scaling})["rope.scaling.original_context_length"] == 128
    with pytest.raises(UnsupportedModel, match="YaRN"):
        said(LLAMA | {"rope_scaling": scaling | extra})
