"""The table of knobs covers what a run has, and reads values as people write them."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from app.pages.recipe import knobs
from app.pages.recipe.knobs import KNOBS, Knob
from core import recipes
from core.errors import BadInput
from core.recipes import Recipe
from core.spec import JobSpec

BY_KEY = {knob.key: knob for knob in KNOBS}


def test_every_value_of_a_recipe_has_a_knob() -> None:
    assert {knob.key for knob in KNOBS if not knob.of_job} == {f.name for f in fields(Recipe)} - {"name", "purpose"}


def test_the_other_knobs_are_fields_of_a_job() -> None:
    assert {knob.key for knob in KNOBS if knob.of_job} <= {f.name for f in fields(JobSpec)}


@pytest.mark.parametrize("knob", KNOBS, ids=lambda knob: knob.key)
def test_every_knob_explains_itself_in_a_line(knob: Knob) -> None:
    assert knob.label
    assert knob.explanation.endswith(".")
    assert len(knob.explanation) < 100


@pytest.mark.parametrize("knob", [knob for knob in KNOBS if knob.kind != "switch"], ids=lambda knob: knob.key)
def test_the_limits_of_the_table_are_those_of_core(knob: Knob) -> None:
    recipe = Recipe()
    knobs.check(knob, recipe, knob.high)
    beyond = knob.high * 2 if knob.kind == "rate" else int(knob.high) + 1
    with pytest.raises(BadInput):
        knobs.check(knob, recipe, beyond)
    if knob.kind == "whole":
        knobs.check(knob, recipe, int(knob.low))
    with pytest.raises(BadInput):
        knobs.check(knob, recipe, knob.low - 1)


@pytest.mark.parametrize("knob", KNOBS, ids=lambda knob: knob.key)
def test_what_is_shown_is_read_back(knob: Knob) -> None:
    if knob.kind == "switch":
        return
    for name in recipes.NAMES:
        value = knobs.default_of(knob, recipes.load(name))
        assert knobs.parse(knob, knobs.shown(value)) == value


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("iters", " 200 ", 200),
        ("samples", "2,048", 2048),
        ("samples", "2 048", 2048),
        ("iters", "-3", -3),
        ("iters", "1.5", "1.5"),
        ("iters", "1,5", "1,5"),
        ("iters", "many", "many"),
        ("iters", "", ""),
        ("lr", "0.005", 0.005),
        ("lr", "0,005", 0.005),
        ("lr", "", None),
        ("minmax_lr", " ", None),
        ("low_bit_lr_scale", "", ""),
        ("lr", "fast", "fast"),
    ],
)
def test_a_text_is_read_as_it_is_meant(key: str, text: str, value: Any) -> None:
    assert knobs.parse(BY_KEY[key], text) == value


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("iters", -3, "iterations -3 is not possible"),
        ("iters", "many", "'many' is not possible"),
        ("lr", float("nan"), "lr nan is not possible"),
        ("seed", -1, "Seed -1 is not possible"),
        ("seqlen", 4, "seqlen 4"),
    ],
)
def test_what_is_impossible_is_refused_in_the_words_of_core(key: str, value: Any, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        knobs.check(BY_KEY[key], Recipe(), value)
    assert words in caught.value.message


def test_an_empty_rate_says_what_it_amounts_to() -> None:
    recipe = Recipe(iters=50)
    assert knobs.automatic(BY_KEY["lr"], recipe) == "0.02"
    assert knobs.automatic(BY_KEY["minmax_lr"], replace(recipe, lr=0.5)) == "0.5"
    assert knobs.automatic(BY_KEY["iters"], recipe) == ""


def test_what_was_changed_is_found() -> None:
    base = recipes.load("quick")
    assert knobs.changed(base, base) == []
    assert knobs.changed(replace(base, iters=41, lr=0.5, name="x"), base) == ["iters", "lr"]
