"""Names of copied modules in the configs of packed formats."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from core.formats.config_names import below, tower_names
from core.model.towers import Tower
from core.schemes import LayerScheme
from tests.core.formats.tiny import LLAMA_CONFIG, bits_map, llama_tensors, open_tree, plan_for, save_source

MODULES = ["model.language_model.layers.0.mlp.up_proj", "model.language_model.layers.0.vision_gate"]


def tower(prefix: str, kind: str = "vision") -> Tower:
    return Tower(prefix, kind, 1, 16, 32, "BF16")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("model.visual", ("visual",)),
        ("mtp", ("mtp",)),
        ("model.layers.61", ("model.layers.61",)),
        ("model.vision", ("model.vision",)),  # a part of `vision_gate`
    ],
)
def test_a_tower_has_the_shortest_name_that_no_quantized_module_contains(
    prefix: str, expected: tuple[str, ...]
) -> None:
    assert tower_names([tower(prefix)], MODULES) == expected


@pytest.mark.parametrize(
    ("name", "matches"),
    [
        ("mtp.fc", True),
        ("model.mtp.layers.0.self_attn.qkv_proj", True),
        ("mtp", False),
        ("model.mtpx.fc", False),
        ("model.layers.0.mlp.up_proj", False),
    ],
)
def test_the_expression_matches_all_modules_below_a_module(name: str, matches: bool) -> None:
    assert bool(re.match(below("mtp"), name)) == bool(re.search(below("mtp"), name)) == matches


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a model with a module that predicts a further token."""
    tensors = {**llama_tensors(), "mtp.fc.weight": torch.zeros(32, 32)}
    return save_source(tmp_path / "source", tensors, LLAMA_CONFIG)


@pytest.mark.parametrize(
    ("name", "key", "entry"),
    [
        ("auto_round", "extra_config", below("mtp")),
        ("auto_gptq", "dynamic", f"-:{below('mtp')}"),
        ("auto_awq", "modules_to_not_convert", "mtp"),
    ],
)
def test_mtp_modules_have_an_entry(source: Path, name: str, key: str, entry: str) -> None:
    plan, _ = plan_for(open_tree(source), name, bits_map(LayerScheme(4, 32, False)))
    assert entry in plan.settings[key]
    assert "mtp.fc.weight" in plan.copied


def test_a_model_without_towers_has_no_entries(tmp_path: Path) -> None:
    folder = save_source(tmp_path / "source", llama_tensors(), LLAMA_CONFIG)
    plan, _ = plan_for(open_tree(folder), "auto_gptq", bits_map(LayerScheme(4, 32, False)))
    assert "dynamic" not in plan.settings
