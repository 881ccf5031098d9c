"""Conversion of schemes to a short bits map."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from core.allocation.schemes_to_map import MAX_RULES, short_map
from core.bitsmap import BitsMap
from core.model.tree import ModelTree
from core.schemes import LayerScheme
from tests.core.paper_model import SHAPES, llama

SCHEMES = [LayerScheme(4), LayerScheme(8), LayerScheme(3, 64, False), LayerScheme(16)]
TREE = llama(4)
NAMES = TREE.block_linears


def short_map_of(wanted: list[int], tree: ModelTree = TREE, free: tuple[int, ...] = ()) -> BitsMap:
    flags = np.zeros(len(wanted), np.bool_)
    flags[list(free)] = True
    return short_map(tree, SCHEMES, np.array(wanted), flags, {})


@given(st.lists(st.integers(0, 3), min_size=len(NAMES), max_size=len(NAMES)))
def test_the_map_resolves_to_the_wanted_schemes(wanted: list[int]) -> None:
    schemes = [assigned.scheme for assigned in short_map_of(wanted).resolve_all(NAMES)]
    for got, number in zip(schemes, wanted, strict=True):
        assert got == SCHEMES[number] or not (got.quantized or SCHEMES[number].quantized)


def test_equal_schemes_give_a_default_without_rules() -> None:
    assert short_map_of([2] * len(NAMES)) == BitsMap(SCHEMES[2])


def test_a_layer_kind_is_one_rule() -> None:
    wanted = [int(name.endswith("down_proj")) for name in NAMES]
    found = short_map_of(wanted)
    assert [(rule.match, rule.bits, rule.group_size) for rule in found.rules] == [("*.mlp.down_proj", 8, None)]
    assert not found.by_hand


def test_a_block_is_one_rule() -> None:
    found = short_map_of([3 * int(".2." in name) for name in NAMES])
    assert [(rule.match, rule.bits) for rule in found.rules] == [("model.layers.2.*", 16)]


def test_an_exception_to_a_rule_is_named() -> None:
    wanted = [int(name.endswith("down_proj") and ".3." not in name) for name in NAMES]
    found = short_map_of(wanted)
    assert [rule.match for rule in found.rules] == ["*.mlp.down_proj"]
    assert list(found.by_hand) == ["model.layers.3.mlp.down_proj"]


def test_a_single_layer_is_named_without_a_rule() -> None:
    found = short_map_of([1] + [0] * (len(NAMES) - 1))
    assert (found.rules, list(found.by_hand)) == ((), [NAMES[0]])


def test_the_same_projection_of_all_experts_is_one_rule() -> None:
    kinds = ("w1", "w2", "w3")
    tree = llama(2, shapes={f"mlp.experts.{n}.{kind}": (64, 64) for n in range(4) for kind in kinds})
    found = short_map_of([int(name.endswith("down_proj")) for name in tree.block_linears], tree)
    assert [rule.match for rule in found.rules] == ["*.mlp.experts.*.down_proj"]


def test_layers_that_cannot_be_quantized_are_not_in_the_map() -> None:
    wanted = [0] * len(NAMES)
    wanted[5] = 1
    assert short_map_of(wanted, free=(5,)) == BitsMap(SCHEMES[0])


def test_layers_that_a_pattern_matches_by_mistake_are_corrected() -> None:
    shapes = {**SHAPES, "moe.mlp.down_proj": (64, 64)}
    tree = llama(4, shapes=shapes)
    wanted = [int(".mlp.down_proj" in name and "moe" not in name) for name in tree.block_linears]
    assigned = short_map_of(wanted, tree).resolve_all(tree.block_linears)
    assert [int(one.scheme.bits == 8) for one in assigned] == wanted


def test_the_number_of_rules_is_limited() -> None:
    tree = llama(60)
    wanted = [(int(name.split(".")[2]) * 7 + 1) % 2 for name in tree.block_linears]
    assert len(short_map_of(wanted, tree).rules) <= MAX_RULES


def test_layers_outside_the_blocks_are_named() -> None:
    free = np.zeros(len(NAMES), np.bool_)
    found = short_map(TREE, SCHEMES, np.zeros(len(NAMES), np.int64), free, {"lm_head": LayerScheme(8, 64)})
    assert found.resolve("lm_head", exact_only=True).scheme == LayerScheme(8, 64)
