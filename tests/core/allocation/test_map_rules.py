"""Editing rules of a bits map, rules without effect, and shorter equivalent maps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.allocation import map_rules
from core.bitsmap import BitsMap, Rule
from core.errors import BadInput
from core.model.tree import resolve_schemes
from core.schemes import LayerScheme
from tests.core.paper_model import llama, mixture, seeing

TREE = llama(6, tied=False)
NAMES = TREE.block_linears
BASE = LayerScheme(4, 64)
A, B, C = Rule("*.down_proj", bits=8), Rule("*.up_proj", bits=3), Rule("*.v_proj", bits=2)
THREE = BitsMap(BASE, (A, B, C))


@pytest.mark.parametrize(
    ("edited", "rules"),
    [
        (map_rules.add(BitsMap(BASE, (A,)), B), (A, B)),
        (map_rules.add(BitsMap(BASE, (A,)), B, at=0), (B, A)),
        (map_rules.change(THREE, 1, A), (A, A, C)),
        (map_rules.remove(THREE, 0), (B, C)),
        (map_rules.move(THREE, 0, 2), (B, C, A)),
        (map_rules.move(THREE, 2, 0), (C, A, B)),
    ],
    ids=["added last", "added first", "changed", "removed", "moved down", "moved up"],
)
def test_an_edit_returns_the_changed_map(edited: BitsMap, rules: tuple[Rule, ...]) -> None:
    assert edited == BitsMap(BASE, rules)


@pytest.mark.parametrize("edit", [map_rules.remove, lambda bits_map, place: map_rules.move(bits_map, 0, place)])
@pytest.mark.parametrize("place", [-1, 3])
def test_an_index_without_a_rule_is_refused(edit: Callable[[BitsMap, int], BitsMap], place: int) -> None:
    with pytest.raises(BadInput, match="3 rules"):
        edit(THREE, place)


def test_a_rule_matches_layers_in_blocks_only() -> None:
    assert map_rules.matches(TREE, Rule("*")) == NAMES
    assert map_rules.matches(TREE, Rule("/layers\\.[01]\\..*q_proj/")) == (
        "model.layers.0.self_attn.q_proj",
        "model.layers.1.self_attn.q_proj",
    )


@pytest.mark.parametrize(
    ("bits_map", "position", "idle"),
    [
        (BitsMap(BASE, (Rule("*.nothing", bits=8),)), 0, "No layer"),
        (BitsMap(BASE, (A, Rule("*.mlp.*", bits=3))), 0, "Later rules"),
        (BitsMap(BASE, (Rule("*.down_proj", bits=4),)), 0, "the same scheme without it"),
        (BitsMap(BASE, (Rule("*.mlp.*", bits=8), A)), 1, "the same scheme without it"),
        (BitsMap(BASE, (A, Rule("*.3.*", bits=3))), 0, ""),
    ],
    ids=["matches nothing", "overruled", "as the default", "as the rule above", "does something"],
)
def test_rules_without_effect_have_a_reason(bits_map: BitsMap, position: int, idle: str) -> None:
    found = map_rules.effects(TREE, bits_map)[position].idle
    assert idle in found
    assert bool(found) == bool(idle)


def test_a_rule_has_no_effect_if_all_its_layers_are_set_by_hand() -> None:
    by_hand = tuple(Rule(name, bits=2) for name in NAMES if name.endswith("down_proj"))
    (effect,) = map_rules.effects(TREE, BitsMap(BASE, (A,), by_hand))
    assert (effect.matched, effect.decided) == (6, 0)
    assert "set by hand" in effect.idle


bits = st.sampled_from([2, 3, 4, 8, 16])
patterns = st.sampled_from(["*", "*.mlp.*", "*.down_proj", "*.layers.2.*", "/layers\\.[0-3]\\./", "*.v_proj", "*_proj"])
rules = st.builds(Rule, patterns, bits, st.sampled_from([None, 32, 128]), st.sampled_from([None, True, False]))
by_hand = st.dictionaries(st.sampled_from([*NAMES, "lm_head"]), bits, max_size=8).map(
    lambda found: tuple(Rule(name, bits=value) for name, value in found.items())
)
maps = st.builds(BitsMap, st.just(BASE), st.lists(rules, max_size=5).map(tuple), by_hand)


def resolved(bits_map: BitsMap) -> list[LayerScheme]:
    """Return the scheme of every layer; all unquantized layers have the same one."""
    found = [bits_map.resolve(name).scheme for name in NAMES] + [bits_map.resolve("lm_head", exact_only=True).scheme]
    return [scheme if scheme.quantized else LayerScheme(16) for scheme in found]


@given(maps)
def test_a_compact_map_is_equivalent_and_has_no_rule_without_effect(bits_map: BitsMap) -> None:
    short = map_rules.compact(TREE, bits_map)
    assert resolved(short) == resolved(bits_map)
    assert len(short.rules) + len(short.layers) <= len(bits_map.rules) + len(bits_map.layers)
    assert not any(effect.idle for effect in map_rules.effects(TREE, short))


def test_a_compact_map_has_no_pattern_that_later_ones_override() -> None:
    rules = (Rule("*.mlp.*", 16, 32), Rule("*.down_proj", 16), Rule("*.layers.2.*", 2))
    short = map_rules.compact(
        TREE, BitsMap(BASE, rules, (Rule(NAMES[0].partition(".self")[0] + ".mlp.down_proj", 16),))
    )
    assert [rule.match for rule in short.rules] == ["*.mlp.*", "model.layers.2.*"]


@given(
    st.lists(st.sampled_from([BASE, LayerScheme(8, 64), LayerScheme(2, 32)]), min_size=len(NAMES), max_size=len(NAMES))
)
def test_a_map_from_schemes_resolves_to_them(schemes: list[LayerScheme]) -> None:
    wanted = dict(zip(NAMES, schemes, strict=True))
    found = map_rules.from_schemes(TREE, BASE, wanted)
    assert {name: found.resolve(name).scheme for name in NAMES} == wanted


def test_simple_patterns_are_found() -> None:
    eight = {name: LayerScheme(8, 64) for name in NAMES if name.endswith("down_proj") or ".layers.5." in name}
    odd = "model.layers.2.self_attn.q_proj"
    found = map_rules.from_schemes(TREE, BASE, {**eight, odd: LayerScheme(2, 64)})
    assert {rule.match for rule in found.rules} == {"*.down_proj", "model.layers.5.*"}
    assert [rule.match for rule in found.layers] == [odd]


def test_a_compact_map_keeps_the_output_layer_by_name() -> None:
    chosen = BitsMap(BASE, (A, A), (Rule("lm_head", bits=8), Rule("model.layers.77.x", bits=8)))
    assert map_rules.compact(TREE, chosen) == BitsMap(BASE, (A,), (Rule("lm_head", bits=8),))


MIXTURE = mixture(3, 4)
EXPERTS = [name for name in MIXTURE.ruled_linears if ".experts." in name]
ROUTER = "model.layers.1.mlp.gate"


def test_a_rule_does_not_match_routers() -> None:
    assert ROUTER in MIXTURE.block_linears
    assert ROUTER not in map_rules.matches(MIXTURE, Rule("*"))
    assert map_rules.effects(MIXTURE, BitsMap(BASE, (Rule("*.gate", bits=8),)))[0].idle == (
        "No layer matches this pattern."
    )


@pytest.mark.parametrize(
    ("chosen", "rule"),
    [
        ([name for name in EXPERTS if name.endswith("down_proj")], "*.down_proj"),
        ([name for name in EXPERTS if ".layers.1." in name], "model.layers.1.mlp.experts.*"),
        (
            [name for name in EXPERTS if ".layers.2." in name and name.endswith("up_proj")],
            "model.layers.2.mlp.experts.*.up_proj",
        ),
    ],
)
def test_experts_of_a_kind_or_block_become_one_rule(chosen: list[str], rule: str) -> None:
    found = map_rules.from_schemes(MIXTURE, BASE, dict.fromkeys(chosen, LayerScheme(8, 64)))
    assert (found.rules, list(found.layers)) == ((Rule(rule, bits=8),), [])


def test_single_experts_and_routers_are_listed_by_name() -> None:
    chosen = [EXPERTS[4], EXPERTS[22], ROUTER]
    found = map_rules.from_schemes(MIXTURE, BASE, dict.fromkeys(chosen, LayerScheme(8, 64)))
    assert (found.rules, [rule.match for rule in found.layers]) == ((), chosen)


@given(
    st.lists(
        st.tuples(st.sampled_from(["*", "*.experts.*", "*.layers.2.*", "*.2.down_proj", "*_proj"]), bits), max_size=4
    ),
    st.lists(st.tuples(st.sampled_from([*EXPERTS[:9], ROUTER, "lm_head"]), bits), max_size=4),
)
def test_a_shorter_map_of_a_mixture_is_equivalent(rules: list[tuple[str, int]], by_hand: list[tuple[str, int]]) -> None:
    given = BitsMap(BASE, tuple(Rule(*rule) for rule in rules), tuple(Rule(*rule) for rule in dict(by_hand).items()))
    found = map_rules.compact(MIXTURE, given)
    assert len(found.rules) + len(found.layers) <= len(given.rules) + len(given.layers)

    def resolved(bits_map: BitsMap) -> list[LayerScheme | None]:
        return [plan.scheme if plan.scheme.quantized else None for plan in resolve_schemes(MIXTURE, bits_map)]

    assert resolved(found) == resolved(given)


def test_bits_of_towers_become_names_with_the_same_plans() -> None:
    tree, whole = seeing(2), BitsMap(BASE, towers=8)
    named = map_rules.name_towers(tree, whole)
    assert (named.towers, len(named.layers)) == (16, 2)
    assert [plan.scheme for plan in resolve_schemes(tree, named)] == [
        plan.scheme for plan in resolve_schemes(tree, whole)
    ]


def test_a_shorter_map_keeps_the_bits_of_towers() -> None:
    assert map_rules.compact(seeing(2), BitsMap(BASE, (A, A), towers=4)).towers == 4


def test_another_map_takes_the_towers_of_the_one_before() -> None:
    tree = seeing(2)
    tower = tree.linears[-1].name
    before = BitsMap(BASE, layers=(Rule(tower, bits=4), Rule("lm_head", bits=8)), towers=8)
    found = map_rules.with_towers_of(tree, BitsMap(BASE, (A,), (Rule(tower, bits=8),)), before)
    assert (found.towers, list(found.layers), found.rules) == (8, [Rule(tower, bits=4)], (A,))
