"""Rules in place of the names of experts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.allocation.expert_rules import fold_experts
from core.bitsmap import BitsMap, Rule, with_layers
from core.model.tree import Linear, ModelTree, resolve_schemes
from core.schemes import LayerScheme
from tests.core.paper_model import llama

_SHAPES = {f"mlp.experts.{number}.{kind}_proj": (64, 64) for number in range(4) for kind in ("gate", "up", "down")} | {
    "self_attn.q_proj": (64, 64),
    "mlp.gate": (4, 64),
}
TREE = llama(4, shapes=_SHAPES)
PLAIN = BitsMap(LayerScheme(4, 64))
UP = "mlp.experts.*.up_proj"


def experts(*blocks: int, kind: str = "up_proj", numbers: tuple[int, ...] = (0, 1, 2, 3)) -> list[Linear]:
    names = {f"mlp.experts.{number}.{kind}" for number in numbers}
    return [linear for linear in TREE.linears if linear.block in blocks and linear.kind in names]


def edited(bits_map: BitsMap, linears: list[Linear], tree: ModelTree = TREE, **keys: int | bool) -> BitsMap:
    """The map after an edit of these layers, which is checked to be the same as the map that lists their names."""
    named = with_layers(bits_map, [linear.name for linear in linears], **keys)  # type: ignore[arg-type]
    folded = fold_experts(tree, named, linears)
    schemes = [[plan.scheme for plan in resolve_schemes(tree, one)] for one in (named, folded)]
    assert schemes[0] == schemes[1]
    return folded


def test_all_experts_of_a_block_are_one_rule() -> None:
    assert edited(PLAIN, experts(1), bits=2) == replace(PLAIN, rules=(Rule(f"model.layers.1.{UP}", bits=2),))


def test_all_experts_of_the_model_are_one_rule() -> None:
    assert edited(PLAIN, experts(0, 1, 2, 3), bits=8).rules == (Rule(f"model.layers.*.{UP}", bits=8),)


def test_experts_of_several_blocks_are_one_rule() -> None:
    (rule,) = edited(PLAIN, experts(0, 2), bits=8).rules
    assert rule.match == r"/^model\.layers\.(0|2)\.mlp\.experts\.\d+\.up_proj$/"


def test_each_module_has_its_rule_and_other_layers_keep_their_names() -> None:
    block = [linear for linear in TREE.linears if linear.block == 3 and not linear.kept]
    found = edited(PLAIN, block, bits=3)
    assert {rule.match.rpartition(".")[2] for rule in found.rules} == {"gate_proj", "up_proj", "down_proj"}
    assert list(found.by_hand) == ["model.layers.3.self_attn.q_proj"]


def test_some_experts_of_a_block_are_named() -> None:
    found = edited(PLAIN, experts(1, numbers=(0, 2)), bits=2)
    assert not found.rules
    assert len(found.layers) == 2


def test_the_rest_of_the_experts_completes_no_rule_of_layers_that_were_not_edited() -> None:
    first = edited(PLAIN, experts(1, numbers=(0, 1)), bits=2)
    assert len(edited(first, experts(1, numbers=(2, 3)), bits=2).layers) == 4


@pytest.mark.parametrize("blocks", [(1,), (0, 1, 2, 3), (1, 2)])
def test_another_edit_replaces_the_rule(blocks: tuple[int, ...]) -> None:
    first = edited(PLAIN, experts(1), bits=2)
    (rule,) = edited(first, experts(*blocks), bits=3).rules
    assert rule.bits == 3


def test_an_edit_of_all_blocks_replaces_the_rules_of_some() -> None:
    first = edited(edited(PLAIN, experts(0, 2), bits=8), experts(1), bits=2)
    assert edited(first, experts(0, 1, 2, 3), bits=3).rules == (Rule(f"model.layers.*.{UP}", bits=3),)


def test_the_default_needs_no_rule() -> None:
    assert edited(edited(PLAIN, experts(1), bits=2), experts(1), bits=4) == PLAIN


def test_another_key_is_added_to_the_rule() -> None:
    found = edited(edited(PLAIN, experts(1), bits=2), experts(1), group_size=32)
    assert found.rules == (Rule(f"model.layers.1.{UP}", bits=2, group_size=32),)


def test_an_expert_with_another_scheme_stays_named() -> None:
    first = edited(PLAIN, experts(1, numbers=(3,)), bits=8)
    found = edited(first, experts(1), group_size=32)
    assert found.rules == (Rule(f"model.layers.1.{UP}", group_size=32),)
    assert list(found.by_hand) == ["model.layers.1.mlp.experts.3.up_proj"]


def test_experts_of_which_some_follow_another_rule_stay_named() -> None:
    first = replace(PLAIN, rules=(Rule("/experts.[01].up_proj/", bits=2),))
    found = edited(first, experts(1), bits=2)
    assert found.rules == first.rules
    assert len(found.layers) == 2


def test_an_expert_overrides_the_rule_by_its_name() -> None:
    found = edited(edited(PLAIN, experts(1), bits=2), experts(1, numbers=(3,)), bits=8)
    assert len(found.rules) == len(found.layers) == 1


def test_a_pattern_that_would_match_other_layers_is_not_used() -> None:
    tree = llama(2, shapes={**_SHAPES, "mlp.experts.0.extra.up_proj": (64, 64)})
    linears = [linear for linear in tree.linears if linear.block == 1 and linear.kind.count(".") == 3]
    ups = [linear for linear in linears if linear.kind.endswith("up_proj")]
    assert not edited(PLAIN, ups, tree, bits=2).rules
