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


def test_a_layer_set_by_hand_compiles_no_pattern() -> None:
    """A map may hold 20,000 of them, and compiling that many takes seconds."""
    chosen = bitsmap.from_json({"version": 1, "layers": {DOWN: {"bits": 8}}})
    chosen.resolve(DOWN)
    assert "pattern" not in vars(chosen.layers[0])


def test_layers_of_one_reason_share_what_is_said_of_them() -> None:
    chosen = BitsMap(layers=(Rule("a", bits=8), Rule("b", bits=8)))
    assert chosen.resolve("a") is chosen.resolve("b")


def test_the_order_of_rules_counts_also_where_an_earlier_map_had_another() -> None:
    mlp, down = Rule("*.mlp.*", bits=2), Rule("*.down_proj", bits=8)
    found = [BitsMap(rules=rules).resolve(DOWN).scheme.bits for rules in ((mlp, down), (down, mlp))]
    assert found == [8, 2]


# --- Setting layers by hand ---------------------------------------------------------------------------------

UP, HEAD = "model.layers.3.mlp.up_proj", "lm_head"
RULED = BitsMap(LayerScheme(4, 64), rules=(Rule("*.down_proj", bits=8, group_size=32),))


def test_a_layer_gets_what_it_is_given_and_keeps_the_rest_of_its_rule() -> None:
    changed = bitsmap.with_layers(RULED, [DOWN], bits=2)
    assert changed.resolve(DOWN).scheme == LayerScheme(2, 32)
    assert changed.resolve(UP) == RULED.resolve(UP)


def test_the_map_that_is_changed_stays_as_it_is() -> None:
    bitsmap.with_layers(RULED, [DOWN], bits=2)
    assert RULED.layers == ()


def test_a_second_edit_keeps_the_first() -> None:
    once = bitsmap.with_layers(RULED, [UP], bits=3)
    assert bitsmap.with_layers(once, [UP], sym=False).layers == (Rule(UP, bits=3, sym=False),)


@pytest.mark.parametrize(("name", "bits"), [(UP, 4), (DOWN, 8)])
def test_a_layer_that_is_given_what_it_had_anyway_is_not_listed(name: str, bits: int) -> None:
    changed = bitsmap.with_layers(bitsmap.with_layers(RULED, [name], bits=3), [name], bits=bits)
    assert changed.layers == ()


def test_the_default_given_by_hand_beats_a_rule() -> None:
    changed = bitsmap.with_layers(RULED, [DOWN], bits=4, group_size=64)
    assert changed.resolve(DOWN).scheme == LayerScheme(4, 64)


def test_the_head_leaves_16_bits_only_when_given_bits() -> None:
    grouped = bitsmap.with_layers(RULED, [HEAD], group_size=32, exact_only=[HEAD])
    assert grouped.resolve(HEAD, exact_only=True).scheme.bits == 16
    changed = bitsmap.with_layers(RULED, [HEAD], bits=8, exact_only=[HEAD])
    assert changed.layers == (Rule(HEAD, bits=8),)
    assert bitsmap.with_layers(changed, [HEAD], bits=16, exact_only=[HEAD]).layers == ()


def test_impossible_bits_are_refused_by_hand_too() -> None:
    with pytest.raises(BadInput, match="5 bits"):
        bitsmap.with_layers(RULED, [UP], bits=5)


NAMES = ("a.q_proj", "a.mlp.up", "b.q_proj", "b.mlp.up")


@given(
    st.lists(st.tuples(st.sampled_from(["*", "*.q_proj", "/mlp/", "b.*"]), KEYS), max_size=3),
    st.dictionaries(st.sampled_from(NAMES), KEYS, max_size=3),
    st.sets(st.sampled_from(NAMES)),
    KEYS,
)
def test_edited_layers_have_the_given_keys_and_all_others_what_they_had(
    rules: list[tuple[str, dict[str, Any]]], layers: dict[str, dict[str, Any]], edited: set[str], keys: dict[str, Any]
) -> None:
    before = BitsMap(
        LayerScheme(3, 64, sym=False),
        tuple(Rule(match, **given) for match, given in rules),
        tuple(Rule(name, **given) for name, given in layers.items()),
    )
    after = bitsmap.with_layers(before, sorted(edited), **keys)
    for name in NAMES:
        old, new = before.resolve(name).scheme, after.resolve(name).scheme
        wanted = LayerScheme(**{**old.to_json(), **keys}) if name in edited else old
        # of a layer in 16 bits nothing else matters
        assert new == wanted or not (new.quantized or wanted.quantized)


# --- Finding layers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [("mlp", [1, 3]), ("Q_PROJ", [0, 2]), ("b.*", [2, 3]), ("/q|up$/", [0, 1, 2, 3]), ("mlp*", []), ("/", [])],
)
def test_a_text_finds_a_part_a_glob_the_whole_name_and_an_expression_any_place(text: str, found: list[int]) -> None:
    assert bitsmap.find(NAMES, text) == found


def test_an_expression_that_is_none_is_refused_in_one_sentence() -> None:
    with pytest.raises(BadInput, match="not a valid pattern"):
        bitsmap.find(NAMES, "/(/")


def test_a_layer_that_is_set_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    path.write_text(
        f'{{"version": 1, "layers": {{"{DOWN}": {{"bits": 8}}, "{DOWN}": {{"bits": 2}}}}}}', encoding="utf-8"
    )
    with pytest.raises(CorruptFile, match="twice"):
        bitsmap.load(path)


def test_the_bits_of_towers_are_in_the_file_only_if_there_are_any(tmp_path: Path) -> None:
    BitsMap(towers=8).save(tmp_path / "map.json")
    assert bitsmap.load(tmp_path / "map.json") == BitsMap(towers=8)
    assert "towers" not in BitsMap().to_json()


@pytest.mark.parametrize("bits", [2, 3, 5, "8", True, None])
def test_towers_have_4_or_8_bits(bits: Any) -> None:
    with pytest.raises(BadInput, match="The layers of towers can have 4 or 8 bits, not"):
        bitsmap.from_json({"version": 1, "towers": bits})
