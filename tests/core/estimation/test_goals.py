"""Goals: the bits that fit are the most that fit, and every suggestion says why."""

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
    """The memory of a model whose layers all have one scheme, from the size of its output."""
    size = output_size(tree, resolve_schemes(tree, BitsMap(scheme)), name).total
    return Footprint(size, conversation_bytes(tree), ENGINE)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> ModelTree:
    return read_tree(save_model(tmp_path_factory.mktemp("models") / "tiny"))


def needed(seconds: Range | None = None, ram: float = 1e9) -> Costs:
    return Costs(Range(0, 0), Range(ram / 2, ram), Range(0, 0), seconds, 0.0)


def test_a_conversation_by_hand(tree: ModelTree) -> None:
    # 2 key-value heads of 16 channels, keys and values, 2 bytes each, for the model's own limit of 256 tokens
    assert conversation_bytes(tree) == 2 * 2 * BLOCKS * 2 * 16 * 256


def test_a_long_context_is_not_all_counted(tree: ModelTree) -> None:
    long = replace(tree, config={**tree.config, "max_position_embeddings": 10**6})
    assert conversation_bytes(long) == conversation_bytes(tree) * 4096 // 256


def test_without_heads_in_the_config_the_hidden_width_counts(tree: ModelTree) -> None:
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


def test_the_reason_holds_what_the_next_larger_would_take(tree: ModelTree) -> None:
    exactly = footprint(tree, SCHEME, "auto_round").total
    why = goals.fit(tree, SCHEME, "auto_round", exactly).why
    assert why.startswith("4 bits: ")
    assert "With 8 bits it would be" in why
    assert "\n" not in why


def test_where_the_original_fits_that_is_said(tree: ModelTree) -> None:
    found = goals.fit(tree, SCHEME, "auto_round", 8e9)
    assert found.bits == 8
    assert "Even the original would fit" in found.why


def test_where_nothing_fits_nothing_is_chosen(tree: ModelTree) -> None:
    found = goals.fit(tree, SCHEME, "auto_round", ENGINE)
    assert (found.bits, found.recipe, found.low_memory) == (None, "", None)
    assert found.why.startswith("Even at 2 bits it takes more than 800 MB")


def test_best_keeps_the_size() -> None:
    found = goals.best(SCHEME, needed(Range(3600, 7200)), 2e9)
    assert (found.bits, found.recipe, found.low_memory) == (None, "best", None)
    assert "60 min to 2.0 h" in found.why


def test_best_saves_memory_where_there_is_little() -> None:
    found = goals.best(SCHEME, needed(ram=3e9), 2e9)
    assert found.low_memory is True
    assert "3 GB and 2 GB are free" in found.why


@pytest.mark.parametrize(("costs", "memory"), [(None, 1.0), (needed(), None), (None, None)])
def test_best_can_do_without_figures(costs: Costs | None, memory: float | None) -> None:
    found = goals.best(SCHEME, costs, memory)
    assert (found.recipe, found.low_memory) == ("best", None)
    assert "measured" in found.why


def test_best_says_what_else_helps_at_few_bits() -> None:
    assert "asymmetric" in goals.best(replace(SCHEME, bits=2), None, None).why
    assert "asymmetric" not in goals.best(SCHEME, None, None).why


def test_fast_is_quick() -> None:
    found = goals.fast(SCHEME, Range(120, 300))
    assert (found.bits, found.recipe) == (None, "quick")
    assert "2 to 5 min by estimate" in found.why


def test_fast_is_plain_rounding_where_quick_is_not() -> None:
    assert goals.fast(SCHEME, Range(3000, 3601)).recipe == "rtn"
    assert goals.fast(SCHEME, Range(3000, 3600)).recipe == "quick"


def test_few_bits_do_not_bear_plain_rounding() -> None:
    found = goals.fast(replace(SCHEME, bits=2), Range(3000, 9000))
    assert found.recipe == "quick"
    assert "At 2 bits that shows" in found.why
