"""What is said of a layer, and what a selection adds up to."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from app.models.layer_sheet import LayerSheet, make_sheet, summarize
from core import sizes
from core.bitsmap import BitsMap, Rule
from core.model.tree import resolve_schemes
from core.schemes import LayerScheme
from tests.core.paper_model import llama

TREE = llama(2, tied=False)
MAP = BitsMap(LayerScheme(4, 64), (Rule("*.down_proj", bits=8), Rule("*.k_proj", group_size=128)))


def sheet(bits_map: BitsMap = MAP, losses: dict[int, float] | None = None) -> LayerSheet:
    return make_sheet(TREE, resolve_schemes(TREE, bits_map), "auto_round", losses or {})


@pytest.mark.parametrize("format_name", ["auto_round", "auto_gptq"])
def test_the_sizes_of_the_layers_are_those_of_the_output(format_name: str) -> None:
    plans = resolve_schemes(TREE, MAP)
    made = make_sheet(TREE, plans, format_name, {})
    whole = sizes.output_size(TREE, plans, format_name)
    every = summarize(made, range(len(made)))
    assert whole.source - every.before + every.after == whole.total


def test_plans_of_any_kind_will_do() -> None:
    plans = resolve_schemes(TREE, MAP)
    assert make_sheet(TREE, list(plans), "auto_round", {}).sizes == make_sheet(TREE, plans, "auto_round", {}).sizes


def test_a_tooltip_names_shape_scheme_reason_and_fallback() -> None:
    made = sheet()
    layer = next(n for n, linear in enumerate(TREE.linears) if linear.kind == "self_attn.k_proj")
    text = made.describe(layer)
    for words in ("model.layers.0.self_attn.k_proj", "192 × 576", "W4 g64 sym", "rule 2", "128 does not divide 576"):
        assert words in text


def test_values_of_each_colouring() -> None:
    made = sheet(losses={1: 0.5})
    assert made.values("bits")[:2] == [8, 4]
    assert made.values("size")[0] == made.size(0) == 926208
    assert made.values("loss")[-2] == 0.5
    assert math.isnan(made.values("loss")[0])


def test_texts_fit_one_unit() -> None:
    made = sheet()
    assert made.unit[1] == "MB"
    assert (made.text(0, "bits"), made.text(len(made) - 1, "size")) == ("8", "56.6")


def test_a_summary_counts_what_differs() -> None:
    made = sheet()
    found = summarize(made, range(7))
    assert found.bits == {8: 1, 4: 6}
    assert found.whys == {"rule 1  *.down_proj": 1, "rule 2  *.k_proj": 1, "default": 5}
    assert list(found.fallbacks) == ["group 128 does not divide 576: 64"]
    assert found.before == sum(TREE.tensors[f"{linear.name}.weight"].nbytes for linear in TREE.linears[:7])
    assert found.after == sum(map(made.size, range(7)))


def test_layers_in_16_bits_have_no_group_in_a_summary() -> None:
    made = sheet(replace(MAP, default=LayerScheme(16), rules=()))
    found = summarize(made, range(7))
    assert (found.bits, found.groups, found.syms) == ({16: 7}, {}, {})


def test_a_screen_reader_hears_the_place_and_the_scheme() -> None:
    made = sheet()
    assert made.spoken(0).startswith("block 0, mlp.down_proj, 8 bits, group 64, symmetric")
    assert made.spoken(len(made) - 1).startswith("lm_head, 16 bits")
