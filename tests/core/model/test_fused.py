"""Groups of fused modules, and the reason of each."""

from __future__ import annotations

import pytest

from core.model.fused import FusedModules, group_positions, groups
from core.model.tree import ModelTree
from tests.core.paper_model import llama, mixture

EXPERTS = llama(1, shapes={f"mlp.experts.{n}.{kind}": (64, 64) for n in range(3) for kind in ("w1", "w2", "w3")})


def lasts(tree: ModelTree, fused: FusedModules) -> list[set[str]]:
    return [{name.rpartition(".")[2] for name in group.layers} for group in groups(tree, fused)]


def test_a_llama_fuses_query_key_value_and_gate_up_of_each_block() -> None:
    found = groups(llama(2), FusedModules())
    assert [set(group.layers) for group in found] == [
        {f"model.layers.{block}.{part}_proj" for part in parts}
        for block in (0, 1)
        for parts in (("mlp.gate", "mlp.up"), ("self_attn.q", "self_attn.k", "self_attn.v"))
    ]
    assert [group.reason for group in found[:2]] == [
        "gate and up are one matrix in most engines",
        "query, key and value are one matrix in most engines",
    ]


@pytest.mark.parametrize(
    ("fused", "expected"),
    [
        (FusedModules(fuse_qkv=False), [{"gate_proj", "up_proj"}]),
        (FusedModules(fuse_gate_up=False), [{"q_proj", "k_proj", "v_proj"}]),
        (FusedModules(False, False, False), []),
    ],
)
def test_each_kind_of_fused_modules_has_a_switch(fused: FusedModules, expected: list[set[str]]) -> None:
    assert lasts(llama(1), fused) == expected


@pytest.mark.parametrize("names", [("query", "key", "value"), ("wq", "wk", "wv"), ("w1", "w3")])
def test_other_habits_of_naming(names: tuple[str, ...]) -> None:
    tree = llama(1, shapes={f"part.{name}": (64, 64) for name in (*names, "other")})
    assert lasts(tree, FusedModules()) == [set(names)]


def test_names_of_two_habits_or_of_two_parents_are_not_fused() -> None:
    tree = llama(1, shapes=dict.fromkeys(("a.q_proj", "b.k_proj", "a.key", "a.value_proj"), (64, 64)))
    assert groups(tree, FusedModules()) == ()


def test_experts_of_a_block_are_fused_kind_by_kind() -> None:
    assert lasts(EXPERTS, FusedModules(fuse_gate_up=False)) == [{"gate_proj"}, {"down_proj"}, {"up_proj"}]
    assert [group.reason for group in groups(EXPERTS, FusedModules(fuse_gate_up=False))] == [
        "the experts of a block are one tensor in most engines"
    ] * 3


def test_experts_and_gate_up_together_make_one_group() -> None:
    found = groups(EXPERTS, FusedModules())
    assert [len(group.layers) for group in found] == [6, 3]
    assert found[0].reason.count(";") == 1


def test_without_fused_experts_each_fuses_its_own_gate_and_up() -> None:
    assert [len(group.layers) for group in groups(EXPERTS, FusedModules(experts=False))] == [2, 2, 2]


def test_positions_are_the_same_groups() -> None:
    for tree in (llama(2), EXPERTS):
        names = [
            tuple(tree.linears[place].name for place in places) for places in group_positions(tree, FusedModules())
        ]
        assert names == [group.layers for group in groups(tree, FusedModules())]


@pytest.mark.parametrize("fused", [True, False])
def test_the_groups_are_the_same_however_the_experts_are_stored(fused: bool) -> None:
    found = groups(mixture(1, 4, fused=fused), FusedModules())
    assert [len(group.layers) for group in found] == [3, 8, 4]
    assert {frozenset(group.layers) for group in found} == {
        frozenset(group.layers) for group in groups(mixture(1, 4), FusedModules())
    }


def test_layers_that_stay_in_16_bits_are_in_no_group() -> None:
    """LongCat has gate and up projections of identity experts, which no token uses."""
    shapes = {f"mlp.experts.{n}.{kind}_proj": (64, 64) for n in range(3) for kind in ("gate", "up", "down")}
    del shapes["mlp.experts.2.down_proj"]
    found = groups(llama(1, shapes=shapes), FusedModules())
    assert [len(group.layers) for group in found] == [4, 2]


def test_all_layers_of_the_experts_of_a_block_can_share_one_scheme() -> None:
    found = groups(mixture(2, 4), FusedModules(block_experts=True))
    assert [len(group.layers) for group in found] == [3, 12, 3, 12]
    assert found[1].reason == "all layers of the experts of a block have one scheme in vLLM"
