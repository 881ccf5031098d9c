"""The rows of the tree as numbers: whatever is folded or filtered, they lead from parents to children and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.pages.layers.layer_grid import make_grid
from app.pages.layers.list.layer_nodes import LayerNodes, make_nodes
from tests.app.pages.layers.experts import mixture

TREE = mixture(3, 5, tied=False)
GRID = make_grid(TREE)
EVERY = range(len(TREE.linears))


def leaves(nodes: LayerNodes) -> list[int]:
    return [nodes.layers[node] for node in range(len(nodes)) if not nodes.counts[node]]


def test_all_layers_are_leaves_once() -> None:
    assert sorted(leaves(make_nodes(GRID))) == list(EVERY)


@given(st.frozensets(st.sampled_from(EVERY)))
def test_children_and_parents_agree_whatever_is_filtered(matches: frozenset[int]) -> None:
    nodes = make_nodes(GRID, matches)
    assert set(leaves(nodes)) == matches == set(nodes.nodes)
    for node in range(len(nodes)):
        for row in range(nodes.counts[node]):
            child = nodes.firsts[node] + row
            assert (nodes.parents[child], nodes.rows[child]) == (node, row)
        assert set(nodes.below(node)) <= matches


@pytest.mark.parametrize("number", [0, 2])
def test_a_block_holds_its_layers(number: int) -> None:
    nodes = make_nodes(GRID)
    assert {TREE.linears[layer].block for layer in nodes.below(number)} == {number}
    assert nodes.blocks[number] == number


def test_an_expert_is_below_its_module_and_its_block() -> None:
    nodes = make_nodes(GRID)
    layer = next(n for n in EVERY if TREE.linears[n].name == "model.layers.1.mlp.experts.3.up_proj")
    module, block = nodes.above(nodes.nodes[layer])
    assert (nodes.stems[module], nodes.blocks[block]) == ("mlp.experts.*.up_proj", 1)
    assert nodes.layers[module] == nodes.below(module)[0]
