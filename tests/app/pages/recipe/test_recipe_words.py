"""The texts on cards: stages, and a time that is called an estimate or said to be missing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.pages.recipe.recipe_words import OTHER, OWN, SAVED, section_of, stages_text, time_text, title_of
from core import recipes
from core.estimation.costs import Range
from core.inference.machine import Machine
from core.recipes import Recipe

MEASURED = Machine(throughput={"cpu": 1e11}, chosen="cpu")


@pytest.mark.parametrize(
    ("recipe", "stages"),
    [
        (Recipe(iters=0), "GPTQ start"),
        (Recipe(iters=50), "GPTQ start, scales (50 steps per block)"),
        (
            Recipe(iters=50, learn_integers=True),
            "GPTQ start, integers and scales (50 steps per block)",
        ),
        (Recipe(iters=0, end_to_end=1200), "GPTQ start, end to end (1,200 steps)"),
        (
            Recipe(iters=50, end_to_end=60),
            "GPTQ start, scales (50 steps per block), end to end (60 steps)",
        ),
        (Recipe(iters=0, start="range"), "rounding"),
        (Recipe(iters=0, start="search"), "search for scales, rounding"),
        (Recipe(iters=200, start="range"), "rounding (200 steps per block)"),
    ],
)
def test_the_stages_of_a_recipe_are_listed_in_their_order(recipe: Recipe, stages: str) -> None:
    assert stages_text(recipe) == stages


def test_a_time_is_called_an_estimate() -> None:
    assert time_text(Range(180, 420), MEASURED, "cpu", model=True) == "Time: 3 to 7 min (estimate)"


def test_a_missing_time_says_why() -> None:
    assert "measuring" in time_text(None, Machine(), "cpu", model=True)
    assert "not measured on cuda:0" in time_text(None, MEASURED, "cuda:0", model=True)
    assert time_text(None, MEASURED, "cpu", model=False) == ""


def test_rounding_and_the_settings_of_autoround_have_a_section_of_their_own() -> None:
    names = ("quick", "gptq", "rtn", "autoround", "autoround-best")
    assert [section_of(recipes.load(name)) for name in names] == [OWN, OWN, OTHER, OTHER, OTHER]
    assert section_of(Recipe("poems")) == SAVED


def test_a_recipe_of_ones_own_goes_by_its_name() -> None:
    assert title_of(replace(Recipe(), name="poems")) == "poems"
    assert title_of(recipes.load("rtn")) == "Plain rounding (RTN)"
