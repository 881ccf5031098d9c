"""What is said of a layer, and what a selection adds up to."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from app.pages.layers.layer_sheet import LayerSheet, make_sheet, summarize
from core.bitsmap import BitsMap, Rule
from core.estimation import sizes
from core.formats.engines import EngineIssue
from core.model.tree import resolve_schemes
from core.schemes import LayerScheme
from core.sensitivity.table import SensitivityTable
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


def test_values_of_each_coloring() -> None:
    made = sheet(losses={1: 0.5})
    assert made.values("bits")[:2] == [8, 4]
    assert made.values("size")[0] == made.size(0) == 926208
    assert made.values("loss")[-2] == 0.5
    assert math.isnan(made.values("loss")[0])


def test_sizes_share_one_unit() -> None:
    assert sheet().unit[1] == "MB"


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


# --- A tied head --------------------------------------------------------------------------------------------


def test_a_tied_head_is_the_last_layer_and_costs_nothing_until_it_is_named() -> None:
    tree = llama(2)
    plain = make_sheet(tree, resolve_schemes(tree, BitsMap()), "auto_round", {})
    assert (len(plain), plain.linear(14).name, plain.size(14), plain.bits[14]) == (15, "lm_head", 0, 16)
    named = BitsMap(layers=(Rule("lm_head", bits=8),))
    assert make_sheet(tree, resolve_schemes(tree, named), "auto_round", {}).bits[14] == 8


# --- Loss increase and marks ---------------------------------------------------------------------------------------

KNOWN = tuple(linear.name for linear in TREE.linears[:7])
"""Of the first block alone; its first layer is at 8 bits, the others at 4."""
LOSS_INCREASE = SensitivityTable(
    "fisher", KNOWN, (LayerScheme(2, 64), LayerScheme(4, 64), LayerScheme(8, 64)), ((4.0, 2.0, 1.0),) * 7
)


def measured(bits_map: BitsMap = MAP) -> LayerSheet:
    return make_sheet(TREE, resolve_schemes(TREE, bits_map), "auto_round", {}, LOSS_INCREASE)


@pytest.mark.parametrize(("layer", "loss_increase"), [(0, 1.0), (1, 2.0), (7, None), (14, 0.0)])
def test_the_loss_increase_of_a_layer_is_that_of_its_scheme(layer: int, loss_increase: float | None) -> None:
    assert measured().loss_increase_now(layer) == loss_increase


def test_sensitivity_is_the_loss_increase_at_the_fewest_bits_whatever_a_layer_has() -> None:
    values = measured().values("sensitivity")
    assert values[:7] == [4.0] * 7
    assert math.isnan(values[7])


def test_the_whole_loss_increase_is_known_where_every_layer_is() -> None:
    assert measured().loss_increase_total is None
    rest = BitsMap(MAP.default, (Rule("*.layers.1.*", bits=16),))
    assert measured(rest).loss_increase_total == 7 * 2.0


def test_what_is_said_of_loss_increase_agrees_with_the_table() -> None:
    made = measured()
    plans = resolve_schemes(TREE, MAP)
    assert [made.loss_increase_now(n) for n in range(15)] == [
        LOSS_INCREASE.of(plan.linear.name, plan.scheme) for plan in plans
    ]


def test_a_tooltip_tells_the_loss_increase_now_and_at_other_bits() -> None:
    assert "Predicted loss increase: 1 now, 4 at 2 bits, 2 at 4 bits, 1 at 8 bits" in measured().describe(0)
    assert "loss increase" not in measured().describe(7)


def test_a_summary_adds_up_the_loss_increase_that_is_known() -> None:
    found = summarize(measured(), range(14))
    assert (found.loss_increase_now, found.loss_increase_before) == (13.0, 28.0)
    assert summarize(measured(), range(7, 14)).loss_increase_now is None


def test_without_a_table_nothing_is_known_of_loss_increase() -> None:
    made = sheet()
    assert (made.loss_increase_now(0), made.loss_increase_total, made.loss_increase_at(0)) == (None, None, [])
    assert all(map(math.isnan, made.values("sensitivity")))


@pytest.mark.parametrize(
    ("severity", "words"), [("cannot", "Cannot be loaded: no kernel"), ("slow", "Slow: no kernel")]
)
def test_what_an_engine_minds_is_told_and_spoken(severity: str, words: str) -> None:
    mark = EngineIssue(TREE.linears[3].name, severity, "no kernel", None)  # type: ignore[arg-type]
    made = make_sheet(TREE, resolve_schemes(TREE, MAP), "auto_round", {}, None, {3: mark})
    assert words in made.describe(3)
    assert words in made.spoken(3)
    assert words not in made.describe(4)


def test_what_was_measured_is_laid_out_once_for_all_edits() -> None:
    tree = llama(2)
    table = SensitivityTable("fisher", tree.block_linears, (LayerScheme(2, 64),), ((1.0,),) * len(tree.block_linears))
    plans = resolve_schemes(tree, BitsMap(LayerScheme(4, 64)))
    first = make_sheet(tree, plans, "auto_round", {}, table)
    again = make_sheet(tree, resolve_schemes(tree, BitsMap(LayerScheme(2, 64))), "auto_round", {}, table, before=first)
    assert again.loss_increase is first.loss_increase
    other = make_sheet(tree, plans, "auto_round", {}, SensitivityTable("fisher", (), (), ()), before=first)
    assert other.loss_increase is not first.loss_increase
