"""What cards say: more tuning is never called worse, and a time is called an estimate or said to be missing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.pages.recipe.recipe_words import OTHER, OWN, SAVED, effort, quality, section_of, time_text, title_of
from core import recipes
from core.estimation.costs import Range
from core.inference.machine import Machine
from core.recipes import Recipe

MEASURED = Machine(throughput={"cpu": 1e11}, chosen="cpu")


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("rtn", "rounded"), ("opt-rtn", "searched"), ("gptq", "short"), ("quick", "medium"), ("light", "medium"),
        ("default", "full"), ("best", "long"), ("autoround-light", "medium"), ("autoround", "full"),
        ("autoround-best", "long"),
    ],
)  # fmt: skip
def test_the_effort_of_the_bundled_recipes(name: str, word: str) -> None:
    assert effort(recipes.load(name)) == word


def test_many_steps_on_hardly_any_text_are_no_effort() -> None:
    assert effort(Recipe(iters=1000, samples=2, seqlen=64)) == "short"
    assert effort(Recipe(iters=1000, samples=2, seqlen=64, start="range")) == "short"


def test_the_same_recipe_does_worse_with_fewer_bits() -> None:
    assert [quality(recipes.load("rtn"), bits) for bits in (8, 4, 2)] == [
        "hardly any loss",
        "visible loss",
        "rarely usable",
    ]


def test_sixteen_bits_lose_nothing() -> None:
    assert "original" in quality(recipes.load("rtn"), 16)


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
