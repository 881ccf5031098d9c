"""The pattern of a selection: exactly its layers, or none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.pages.layers.rules.selection_pattern import pattern_of
from core.allocation.map_rules import matches
from core.bitsmap import Rule
from core.model.tree import ModelTree
from tests.core.paper_model import llama

TREE = llama(5)


def of(tree: ModelTree, blocks: list[int], kinds: list[str]) -> list[int]:
    return [
        n
        for n, linear in enumerate(tree.linears)
        if linear.block in blocks and any(linear.kind.endswith(kind) for kind in kinds)
    ]


@pytest.mark.parametrize(
    ("blocks", "kinds", "pattern"),
    [
        ([0, 1, 2, 3, 4], [""], "*"),
        ([0, 1, 2, 3, 4], ["down_proj"], "*.down_proj"),
        ([0, 1, 2, 3, 4], ["down_proj", "up_proj", "gate_proj"], "*.mlp.*"),
        ([3], [""], "model.layers.3.*"),
        ([3], ["k_proj"], "model.layers.3.self_attn.k_proj"),
        ([1, 3], ["k_proj"], r"/^model\.layers\.(1|3)\.self_attn\.k_proj$/"),
        ([1, 3], [""], r"/^model\.layers\.(1|3)[.]/"),
        ([0, 1, 2, 3, 4], ["k_proj", "v_proj"], r"/\.(self_attn\.k_proj|self_attn\.v_proj)$/"),
    ],
)
def test_a_person_would_write_it_so(blocks: list[int], kinds: list[str], pattern: str) -> None:
    assert pattern_of(TREE, of(TREE, blocks, kinds)) == pattern


def test_layers_without_a_pattern_in_common_have_none() -> None:
    assert pattern_of(TREE, [0, 8]) == ""


def test_the_head_has_none() -> None:
    tree = llama(2, tied=False)
    assert pattern_of(tree, [len(tree.linears) - 1]) == ""


def test_a_tied_head_has_none() -> None:
    assert pattern_of(TREE, [len(TREE.linears)]) == ""


@given(st.sets(st.integers(0, 4), min_size=1), st.sets(st.integers(0, 6), min_size=1))
def test_a_block_of_layers_is_matched_exactly(blocks: set[int], kinds: set[int]) -> None:
    all_kinds = sorted({linear.kind for linear in TREE.linears})
    wanted = of(TREE, list(blocks), [all_kinds[kind] for kind in kinds])
    pattern = pattern_of(TREE, wanted)
    assert set(matches(TREE, Rule(pattern, 4))) == {TREE.linears[n].name for n in wanted}
