"""The precedence of a bits map, its file, and what is wrong with bad ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import bitsmap
from core.bitsmap import BitsMap, Rule
from core.errors import BadInput, CorruptFile
from core.schemes import LayerScheme

DOWN = "model.layers.3.mlp.down_proj"
KEYS = st.fixed_dictionaries(
    {},
    optional={
        "bits": st.sampled_from([2, 3, 4, 8, 16]),
        "group_size": st.sampled_from([-1, 32, 64, 128]),
        "sym": st.booleans(),
    },
)


def test_a_layer_without_a_rule_gets_the_default() -> None:
    assigned = BitsMap(LayerScheme(3, 64)).resolve(DOWN)
    assert (assigned.scheme, assigned.why) == (LayerScheme(3, 64), "default")


def test_the_last_rule_that_matches_wins_and_inherits_from_the_default_only() -> None:
    chosen = BitsMap(
        LayerScheme(4, 128, sym=False),
        rules=(Rule("*.down_proj", bits=8, group_size=32), Rule("*.mlp.*", bits=2), Rule("*.q_proj", bits=3)),
    )
    assigned = chosen.resolve(DOWN)
    assert assigned.scheme == LayerScheme(2, 128, sym=False)
    assert assigned.why == "rule 2  *.mlp.*"


def test_a_layer_set_by_hand_beats_every_rule() -> None:
    chosen = BitsMap(rules=(Rule("*", bits=8),), layers=(Rule(DOWN, bits=2),))
    assert chosen.resolve(DOWN).scheme.bits == 2
    assert chosen.resolve(DOWN).why == "by hand"


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("*.down_proj", DOWN, True),
        ("down_proj", DOWN, False),
        ("model.layers.3.*", DOWN, True),
        ("model.layers.3.*", "model.layers.30.mlp.down_proj", False),
        ("model.layers.?.mlp*", DOWN, True),
        ("model.layers.[0-2].*", DOWN, False),
        ("model.layers.3.mlp.down", DOWN, False),
        ("/down_proj$/", DOWN, True),
        (r"/layers\.[0-9]\.mlp/", DOWN, True),
        ("/layers/", DOWN, True),
        ("/^mlp/", DOWN, False),
    ],
)
def test_globs_match_whole_names_and_expressions_search(pattern: str, name: str, matches: bool) -> None:
    chosen = BitsMap(rules=(Rule(pattern, bits=8),))
    assert (chosen.resolve(name).scheme.bits == 8) is matches


def test_embeddings_and_head_change_only_by_exact_name() -> None:
    chosen = BitsMap(rules=(Rule("*", bits=8), Rule("lm_head", bits=8)))
    assert chosen.resolve("lm_head", exact_only=True).scheme.bits == 16
    by_hand = BitsMap(layers=(Rule("lm_head", bits=8),))
    assert by_hand.resolve("lm_head", exact_only=True).scheme.bits == 8


def test_patterns_and_names_that_nothing_answers_to() -> None:
    chosen = BitsMap(rules=(Rule("*.down_proj"), Rule("*.w9")), layers=(Rule("model.norm", bits=8), Rule(DOWN, bits=8)))
    assert chosen.unmatched([DOWN]) == ["*.w9", "model.norm"]


@given(
    st.lists(st.tuples(st.sampled_from(["*", "*.q_proj", "/mlp/"]), KEYS), max_size=4),
    st.dictionaries(st.sampled_from(["a", "b.c", DOWN]), KEYS, max_size=3),
)
def test_a_map_comes_back_from_its_json(rules: list[tuple[str, dict[str, Any]]], layers: dict[str, Any]) -> None:
    value = {
        "version": 1,
        "default": {"bits": 3, "group_size": 64, "sym": False},
        "rules": [{"match": match, **keys} for match, keys in rules],
        "layers": layers,
    }
    chosen = bitsmap.from_json(value)
    assert chosen.to_json() == value
    assert bitsmap.from_json(chosen.to_json()) == chosen


def test_a_map_comes_back_from_its_file(tmp_path: Path) -> None:
    chosen = BitsMap(LayerScheme(2, 32), (Rule("*.q_proj", bits=8),), (Rule(DOWN, sym=False),))
    chosen.save(tmp_path / "map.json")
    assert bitsmap.load(tmp_path / "map.json") == chosen


def test_missing_keys_of_the_default_come_from_the_caller() -> None:
    chosen = bitsmap.from_json({"version": 1, "default": {"bits": 8}}, LayerScheme(2, 64, sym=False))
    assert chosen.default == LayerScheme(8, 64, sym=False)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "not a JSON object"),
        ({}, "version None"),
        ({"version": 2}, "version 2"),
        ({"version": 1, "bits": 4}, "unknown part: bits"),
        ({"version": 1, "rules": {}}, "rules must be a list"),
        ({"version": 1, "layers": []}, "layers an object"),
        ({"version": 1, "rules": [{"bits": 4}]}, "has no match"),
        ({"version": 1, "rules": [{"match": "", "bits": 4}]}, "empty pattern"),
        ({"version": 1, "rules": [{"match": "/(/", "bits": 4}]}, "not a valid pattern"),
        ({"version": 1, "rules": [{"match": "*", "bit": 4}]}, "something other than"),
        ({"version": 1, "rules": [{"match": "*", "bits": 5}]}, "5 bits"),
        ({"version": 1, "layers": {"a": {"group_size": 7}}}, "Group size 7"),
        ({"version": 1, "layers": {"a": 4}}, "something other than"),
        ({"version": 1, "default": {"sym": "no"}}, "not true or false"),
    ],
)
def test_a_bad_map_is_refused_in_one_sentence(value: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        bitsmap.from_json(value)


def test_a_missing_map_and_a_torn_one(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no bits map"):
        bitsmap.load(tmp_path / "map.json")
    (tmp_path / "map.json").write_text('{"version"')
    with pytest.raises(CorruptFile):
        bitsmap.load(tmp_path / "map.json")
