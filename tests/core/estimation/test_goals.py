"""Tests of the suggestions for a goal and of their reasons."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.bitsmap import BitsMap
from core.estimation import goals
from core.estimation.costs import Costs, Range
from core.estimation.goals import ENGINE, Footprint, conversation_bytes
from core.estimation.preflight import read_tree
from core.estimation.sizes import output_size
from core.model.tree import ModelTree, resolve_schemes
from core.schemes import LayerScheme
from tests.core.tiny_model import BLOCKS, save_model

SCHEME = LayerScheme(4, 32, True)


def footprint(tree: ModelTree, scheme: LayerScheme, name: str) -> Footprint:
    """Return the memory of a model with one scheme for all layers, from the size of its output."""
    size = output_size(tree, resolve_schemes(tree, BitsMap(scheme)), name).total
    return Footprint(size, conversation_bytes(tree), ENGINE)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> ModelTree:
    return read_tree(save_model(tmp_path_factory.mktemp("models") / "tiny"))


def needed(seconds: Range | None = None, ram: float = 1e9) -> Costs:
    return Costs(Range(0, 0), Range(ram / 2, ram), Range(0, 0), seconds, 0.0)


def test_the_cache_of_a_conversation_equals_the_formula(tree: ModelTree) -> None:
    # 2 key-value heads of 16 channels, keys and values, 2 bytes each, for the model's own limit of 256 tokens
    assert conversation_bytes(tree) == 2 * 2 * BLOCKS * 2 * 16 * 256


def test_a_conversation_is_limited_to_4096_tokens(tree: ModelTree) -> None:
    long = replace(tree, config={**tree.config, "max_position_embeddings": 10**6})
    assert conversation_bytes(long) == conversation_bytes(tree) * 4096 // 256


def test_without_heads_in_the_config_the_hidden_size_is_used(tree: ModelTree) -> None:
    bare = replace(tree, config={"hidden_size": 64, "max_position_embeddings": 10})
    assert conversation_bytes(bare) == 2 * 2 * BLOCKS * 64 * 10


def test_a_nested_config_is_read(tree: ModelTree) -> None:
    assert conversation_bytes(replace(tree, config={"text_config": tree.config})) == conversation_bytes(tree)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_the_most_bits_that_fit_are_chosen(tree: ModelTree, bits: int) -> None:
    exactly = footprint(tree, replace(SCHEME, bits=bits), "auto_round").total
    assert goals.fit(tree, SCHEME, "auto_round", exactly).bits == bits
    less = goals.fit(tree, SCHEME, "auto_round", exactly - 1).bits
    assert less == {8: 4, 4: 3, 3: 2, 2: None}[bits]


def test_the_reason_includes_the_memory_of_the_next_larger_size(tree: ModelTree) -> None:
    exactly = footprint(tree, SCHEME, "auto_round").total
    why = goals.fit(tree, SCHEME, "auto_round", exactly).why
    assert why.startswith("4 bits: ")
    assert "With 8 bits it would need" in why
    assert "\n" not in why


def test_the_reason_mentions_that_the_original_fits(tree: ModelTree) -> None:
    found = goals.fit(tree, SCHEME, "auto_round", 8e9)
    assert found.bits == 8
    assert "Even the original would fit" in found.why


def test_no_bits_are_suggested_if_nothing_fits(tree: ModelTree) -> None:
    found = goals.fit(tree, SCHEME, "auto_round", ENGINE)
    assert (found.bits, found.recipe, found.low_memory) == (None, "", None)
    assert found.why.startswith("Even with 2 bits it needs more than 800 MB")


def test_best_keeps_the_size() -> None:
    found = goals.best(SCHEME, needed(Range(3600, 7200)), 2e9)
    assert (found.bits, found.recipe, found.low_memory) == (None, "best", None)
    assert "60 min to 2.0 h" in found.why


def test_best_turns_on_low_memory_mode_if_memory_is_short() -> None:
    found = goals.best(SCHEME, needed(ram=3e9), 2e9)
    assert found.low_memory is True
    assert "3 GB and 2 GB are free" in found.why


@pytest.mark.parametrize(("costs", "memory"), [(None, 1.0), (needed(), None), (None, None)])
def test_best_works_without_estimates(costs: Costs | None, memory: float | None) -> None:
    found = goals.best(SCHEME, costs, memory)
    assert (found.recipe, found.low_memory) == ("best", None)
    assert "measured" in found.why


def test_best_suggests_smaller_groups_for_few_bits() -> None:
    assert "asymmetric" in goals.best(replace(SCHEME, bits=2), None, None).why
    assert "asymmetric" not in goals.best(SCHEME, None, None).why


def test_fast_suggests_quick() -> None:
    found = goals.fast(SCHEME, Range(120, 300))
    assert (found.bits, found.recipe) == (None, "quick")
    assert "estimated 2 to 5 min" in found.why


def test_fast_suggests_plain_rounding_if_quick_takes_over_an_hour() -> None:
    assert goals.fast(SCHEME, Range(3000, 3601)).recipe == "rtn"
    assert goals.fast(SCHEME, Range(3000, 3600)).recipe == "quick"


def test_plain_rounding_is_not_suggested_for_few_bits() -> None:
    found = goals.fast(replace(SCHEME, bits=2), Range(3000, 9000))
    assert found.recipe == "quick"
