"""Fit of a run's layers in each format, together with its other formats."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.shared.formats import fit as format_fit
from app.shared.formats.fit import FormatFits, own_grids
from app.shared.models.opened import OpenedModel
from core.bitsmap import BitsMap, Rule
from core.estimation.sizes import output_size
from core.formats.grids import plan_layers
from core.schemes import LayerScheme

MAP = BitsMap(LayerScheme(4, 32, True))
MIXED = replace(MAP, rules=(Rule("*.down_proj", bits=8),))


def test_a_format_that_fits_has_a_size(opened: OpenedModel) -> None:
    plans = plan_layers(opened.tree, MAP, ("auto_gptq",))
    found = FormatFits(opened.tree, MAP).among("auto_gptq", ("auto_round",))
    assert (found.problems, found.size) == ((), output_size(opened.tree, plans, "auto_gptq").total)


def test_one_that_cannot_hold_the_map_says_why(opened: OpenedModel) -> None:
    found = FormatFits(opened.tree, MIXED).among("auto_awq", ())
    assert found.problems
    assert "8" in found.problems[0]


def test_what_a_format_costs_is_noted(opened: OpenedModel) -> None:
    (note,) = FormatFits(opened.tree, BitsMap(LayerScheme(2, 32, True))).among("gguf", ()).notes
    assert "4.5 bits" in note


def test_layers_on_a_grid_of_their_own_are_for_one_format(opened: OpenedModel) -> None:
    fits = FormatFits(opened.tree, MAP)
    assert fits.among("gguf:q4_1", ("auto_round",)).problems == ()
    assert fits.among("auto_round", ("gguf:q4_1",)).problems
    assert fits.among("auto_round", ("auto_gptq",)).problems == ()


def test_two_grids_of_their_own_are_two_runs(opened: OpenedModel) -> None:
    (problem,) = FormatFits(opened.tree, MAP).among("gguf:q4_1", ("gguf:q5_0", "gguf:q4_1")).problems
    assert "need separate runs" in problem


def test_another_type_is_meant_in_place_of_the_one_that_is_written(opened: OpenedModel) -> None:
    fits = FormatFits(opened.tree, MAP)
    assert fits.among("gguf:q5_0", ("gguf:q4_1",)) == fits.among("gguf:q5_0", ())


def test_layers_that_are_known_are_not_planned_again(opened: OpenedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    fits = FormatFits(opened.tree, MAP)
    fits.know(("auto_round", "auto_gptq"), plan_layers(opened.tree, MAP, ()))
    monkeypatch.setattr(format_fit, "plan_layers", None)
    assert fits.among("auto_awq", ("auto_round",)).size


def test_only_named_types_decide_on_the_grid() -> None:
    assert own_grids(("auto_round", "gguf", "gguf:q4_k_m")) == ("gguf:q4_k_m",)
