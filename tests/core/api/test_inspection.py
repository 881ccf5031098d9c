"""The layers of a model with the scheme of each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core import api
from core.bitsmap import BitsMap, Rule
from core.errors import BitwrightError
from core.schemes import LayerScheme
from tests.core.tiny_model import save_model


def test_inspecting_gives_the_tree_the_map_and_the_size(tiny: Path, place: Path) -> None:
    found = api.inspect(tiny, bits=3, group_size=32)
    assert (found.origin, found.tree.blocks, len(found.plans)) == ("folder", 2, 14)
    assert found.size is not None
    assert found.size.effective_bits == 3 + 19 / 32
    assert json.loads(json.dumps(found.to_json()))["bits_per_weight"] == found.size.effective_bits


def test_inspecting_says_what_only_a_run_checks(place: Path) -> None:
    model = save_model(place / "model")
    assert api.inspect(model, group_size=32).unchecked == ""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    (model / "config.json").write_text(json.dumps(config | {"model_type": "mpt"}), encoding="utf-8")
    assert "at the start of a run" in api.inspect(model, group_size=32).unchecked


def test_inspecting_shows_a_tied_head_that_the_map_names(tiny: Path, place: Path) -> None:
    chosen = BitsMap(LayerScheme(4, 32), layers=(Rule("lm_head", bits=8),))
    last = api.inspect(tiny, bits_map=chosen).to_json()["linears"][-1]
    assert (last["name"], last["scheme"]["bits"]) == ("lm_head", 8)
    assert "a separate 8-bit copy" in last["scheme_source"]


def test_errors_of_the_calls_are_bitwright_errors(place: Path) -> None:
    with pytest.raises(BitwrightError):
        api.inspect("./nothing")
