"""What formats cannot hold, and what holding costs."""

from __future__ import annotations

import pytest

from core.bitsmap import BitsMap, Rule
from core.formats.grids import plan_layers
from core.formats.holding import notes, problems
from core.formats.names import FORMATS
from core.schemes import LayerScheme
from tests.core.paper_model import llama

TREE = llama(4)


def said(bits_map: BitsMap, name: str) -> list[str]:
    return problems(TREE, plan_layers(TREE, bits_map, ("auto_round",)), name)


@pytest.mark.parametrize("name", [name for name in FORMATS if ":q" not in name])
def test_four_bits_symmetric_are_held_by_all(name: str) -> None:
    assert said(BitsMap(LayerScheme(4, 64)), name) == []


def test_no_block_type_holds_eight_bits_asymmetric() -> None:
    found = said(BitsMap(LayerScheme(4, 64), (Rule("*.v_proj", bits=8, sym=False),)), "gguf")
    assert len(found) == 1
    assert "layers.0.self_attn.v_proj and 3 more layers" in found[0]
    assert "W8 g64 asym" in found[0]


def test_awq_holds_four_bits_of_one_scheme() -> None:
    assert said(BitsMap(LayerScheme(3, 64)), "auto_awq")
    assert said(BitsMap(LayerScheme(4, 64), (Rule("*.v_proj", group_size=32),)), "auto_awq")
    assert said(BitsMap(LayerScheme(4, 64), (Rule("*.v_proj", bits=16),)), "auto_awq") == []


def test_grids_of_gguf_are_held_by_gguf_alone() -> None:
    plans = plan_layers(TREE, BitsMap(), ("gguf:q4_k_m",))
    assert problems(TREE, plans, "gguf:q4_k_m") == []
    assert problems(TREE, plans, "auto_round")


@pytest.mark.parametrize(
    ("scheme", "cost"),
    [(LayerScheme(2, 64), "4.5"), (LayerScheme(3, 64, sym=False), "4.5"), (LayerScheme(4, 64, sym=False), "5.5")],
)
def test_what_exact_carrying_costs_is_said(scheme: LayerScheme, cost: str) -> None:
    found = notes(TREE, plan_layers(TREE, BitsMap(scheme), ("gguf",)), "gguf")
    assert len(found) == 1
    assert f"take {cost} bits a weight" in found[0]


def test_nothing_is_said_where_nothing_is_lost() -> None:
    plans = plan_layers(TREE, BitsMap(LayerScheme(4, 32)), ("gguf",))
    assert notes(TREE, plans, "gguf") == []
    assert notes(TREE, plans, "auto_round") == []
