"""The table of parameters has all parameters of a run, and parses values as people write them."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from app.pages.recipe import parameters
from app.pages.recipe.parameters import PARAMETERS, Parameter
from core import recipes
from core.errors import BadInput
from core.recipes import Recipe
from core.spec import JobSpec

BY_KEY = {parameter.key: parameter for parameter in PARAMETERS}


def test_every_value_of_a_recipe_has_a_parameter() -> None:
    assert {parameter.key for parameter in PARAMETERS if not parameter.of_job} == {f.name for f in fields(Recipe)} - {
        "name",
        "purpose",
    }


def test_the_other_parameters_are_fields_of_a_job() -> None:
    assert {parameter.key for parameter in PARAMETERS if parameter.of_job} <= {f.name for f in fields(JobSpec)}


@pytest.mark.parametrize("parameter", PARAMETERS, ids=lambda parameter: parameter.key)
def test_every_parameter_explains_itself_in_a_line(parameter: Parameter) -> None:
    assert parameter.label
    assert parameter.explanation.endswith(".")
    assert len(parameter.explanation) < 100


@pytest.mark.parametrize(
    "parameter",
    [parameter for parameter in PARAMETERS if parameter.kind in ("whole", "rate")],
    ids=lambda parameter: parameter.key,
)
def test_the_limits_of_the_table_are_those_of_core(parameter: Parameter) -> None:
    recipe = Recipe(start="gptq" if parameter.key == "end_to_end" else "range")
    parameters.check(parameter, recipe, parameter.high)
    beyond = parameter.high * 2 if parameter.kind == "rate" else int(parameter.high) + 1
    with pytest.raises(BadInput):
        parameters.check(parameter, recipe, beyond)
    if parameter.kind == "whole":
        parameters.check(parameter, recipe, int(parameter.low))
    with pytest.raises(BadInput):
        parameters.check(parameter, recipe, parameter.low - 1)


def test_the_choices_of_the_start_are_those_of_core() -> None:
    start = next(parameter for parameter in PARAMETERS if parameter.key == "start")
    assert tuple(value for value, _ in start.choices) == recipes.STARTS
    assert parameters.spoken(start, "gptq") == "GPTQ"


@pytest.mark.parametrize("parameter", PARAMETERS, ids=lambda parameter: parameter.key)
def test_what_is_shown_is_read_back(parameter: Parameter) -> None:
    if parameter.kind not in ("whole", "rate", "size"):
        return
    for name in recipes.NAMES:
        value = parameters.default_of(parameter, recipes.load(name))
        assert parameters.parse(parameter, parameters.shown(parameter, value)) == value


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("iters", " 200 ", 200),
        ("memory", "8 GB", 8_000_000_000),
        ("memory", "512 MiB", 512 << 20),
        ("memory", "", None),
        ("memory", "much", "much"),
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
    assert parameters.parse(BY_KEY[key], text) == value


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
        parameters.check(BY_KEY[key], Recipe(), value)
    assert words in caught.value.message


def test_an_empty_rate_says_what_it_amounts_to() -> None:
    recipe = Recipe(iters=50, start="range")
    assert parameters.automatic(BY_KEY["lr"], recipe) == "0.02"
    assert parameters.automatic(BY_KEY["minmax_lr"], replace(recipe, lr=0.5)) == "0.5"
    assert parameters.automatic(BY_KEY["iters"], recipe) == ""


def test_what_was_changed_is_found() -> None:
    base = recipes.load("autoround")
    assert parameters.changed(base, base) == []
    assert parameters.changed(replace(base, iters=41, lr=0.5, name="x"), base) == ["iters", "lr"]


def test_rates_of_integers_are_unused_if_only_scales_are_tuned() -> None:
    default, autoround = replace(recipes.load("default"), learn_integers=False), recipes.load("autoround")
    found = [parameter.key for parameter in PARAMETERS if parameters.unused(parameter, default)]
    assert found == ["lr", "low_bit_lr_scale"]
    assert parameters.automatic(BY_KEY["lr"], default) == ""
    assert parameters.automatic(BY_KEY["minmax_lr"], default) == "by bits"
    without = [parameter.key for parameter in PARAMETERS if parameters.unused(parameter, autoround)]
    assert without == ["learn_integers", "end_to_end"]
    assert not any(parameters.unused(parameter, replace(default, learn_integers=True)) for parameter in PARAMETERS)


def test_another_start_resets_the_rates_that_it_does_not_use_and_brings_them_back() -> None:
    base = recipes.load("autoround-best")
    with_start = parameters.turned(base, base, "start", "gptq")
    assert (with_start.start, with_start.low_bit_lr_scale) == ("gptq", 1.0)
    assert parameters.turned(with_start, base, "start", "range") == base
    searched = parameters.turned(replace(base, lr=0.5), base, "start", "search")
    assert searched == replace(base, lr=0.5, start="search")
    ended = replace(recipes.load("default"), end_to_end=20, learn_integers=True)
    plain = parameters.turned(ended, ended, "start", "range")
    assert (plain.start, plain.end_to_end, plain.learn_integers) == ("range", 0, False)
    assert parameters.turned(plain, ended, "start", "gptq") == ended
    assert parameters.turned(base, base, "iters", 7) == replace(base, iters=7)


def test_fixed_integers_reset_the_rates_of_learned_ones() -> None:
    learned = replace(recipes.load("default"), learn_integers=True, lr=0.02, low_bit_lr_scale=2.0)
    fixed = parameters.turned(learned, learned, "learn_integers", False)
    assert fixed == replace(learned, learn_integers=False, lr=None, low_bit_lr_scale=1.0)
