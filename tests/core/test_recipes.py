"""The bundled recipes, the settings of AutoRound among them, and the refusal of bad values."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core import recipes
from core.errors import BadInput
from core.files import write_json
from core.recipes import Recipe


@pytest.mark.parametrize(
    ("name", "iters", "samples", "seqlen", "batch", "rate_at_4", "rate_at_2"),
    [
        ("autoround-light", 50, 128, 2048, 8, 0.005, 0.005),
        ("autoround", 200, 128, 2048, 8, 1 / 200, 1 / 200),
        ("autoround-best", 1000, 512, 2048, 8, 1 / 1000, 2 / 1000),
    ],
)
def test_the_published_recipes(
    name: str, iters: int, samples: int, seqlen: int, batch: int, rate_at_4: float, rate_at_2: float
) -> None:
    recipe = recipes.load(name)
    assert (recipe.iters, recipe.samples, recipe.seqlen, recipe.batch_size) == (iters, samples, seqlen, batch)
    assert recipe.learning_rate(4) == pytest.approx(rate_at_4)
    assert recipe.learning_rate(2) == pytest.approx(rate_at_2)
    assert recipe.start == "range"


def test_own_recipes_start_without_gradients_and_cost_more_from_one_to_the_next() -> None:
    own = [recipes.load(name) for name in ("gptq", "quick", "light", "default", "best")]
    assert {recipe.start for recipe in own} == {"gptq"}
    tuned = [recipe.iters * recipe.batch_size * recipe.seqlen for recipe in own]
    assert tuned == sorted(set(tuned))
    assert tuned[0] == 0


def test_a_recipe_without_values_is_the_default_without_the_stages_that_need_a_start() -> None:
    default = recipes.load("default")
    assert default.learn_integers
    assert default.end_to_end
    assert replace(Recipe(), purpose=default.purpose, learn_integers=True, end_to_end=default.end_to_end) == default


@pytest.mark.parametrize("values", [{"lr": 0.1}, {"low_bit_lr_scale": 2.0}])
def test_settings_of_rounding_offsets_are_refused_after_a_start_that_fixes_the_integers(values: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="only the scales are tuned") as caught:
        recipes.load("quick", **values)
    assert "--minmax-lr" in caught.value.hint
    assert recipes.load("autoround", **values) == replace(recipes.load("autoround"), **values)
    assert recipes.load("default", learn_integers=True, **values).start == "gptq"


def test_learned_integers_need_the_start_that_finds_them() -> None:
    with pytest.raises(BadInput, match='need the start "gptq"'):
        recipes.load("autoround", learn_integers=True)


@pytest.mark.parametrize("name", recipes.NAMES)
def test_every_bundled_recipe_loads_and_says_what_it_is_for(name: str) -> None:
    recipe = recipes.load(name)
    assert recipe.name == name
    assert recipe.purpose.endswith(".")


def test_plain_rounding_has_no_steps() -> None:
    assert recipes.load("rtn").iters == recipes.load("opt-rtn").iters == 0
    assert recipes.load("opt-rtn").start == "search"
    assert recipes.load("rtn").start == "range"


def test_overrides_replace_and_none_does_not() -> None:
    recipe = recipes.load("light", iters=10, samples=None)
    assert (recipe.iters, recipe.samples) == (10, 64)


def test_the_range_rate_follows_the_rounding_rate_unless_given() -> None:
    assert Recipe(iters=100, start="range").range_rate(4) == pytest.approx(0.01)
    assert Recipe(iters=100, minmax_lr=0.5, start="range").range_rate(2) == 0.5


def test_the_rate_of_scales_depends_on_the_bits_unless_given() -> None:
    recipe = Recipe(iters=50)
    assert recipe.range_rate(2) > recipe.range_rate(3) > recipe.range_rate(4) > recipe.range_rate(8)
    assert replace(recipe, minmax_lr=0.5).range_rate(2) == 0.5


def test_a_recipe_comes_back_from_its_file(tmp_path: Path) -> None:
    recipe = Recipe("mine", "For me.", iters=7, lr=0.25, start="search")
    write_json(tmp_path / "mine.json", recipe.to_json())
    assert recipes.load(str(tmp_path / "mine.json")) == recipe


@pytest.mark.parametrize(
    "values",
    [
        {"iters": -3}, {"iters": 1.5}, {"iters": True}, {"iters": "10"}, {"samples": 0}, {"seqlen": 0},
        {"batch_size": 0}, {"accumulate": 0}, {"lr": 0}, {"lr": -1}, {"lr": math.nan}, {"lr": math.inf}, {"lr": True},
        {"lr": "fast"}, {"minmax_lr": 11}, {"low_bit_lr_scale": 0}, {"start": "yes"},
        {"start": "gptq", "end_to_end": -1}, {"start": "gptq", "end_to_end": 1.5},
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=r"not possible|not true or false"):
        Recipe(**values)


def test_an_unknown_recipe_names_the_known_ones() -> None:
    with pytest.raises(BadInput) as caught:
        recipes.load("fastest")
    assert "quick" in caught.value.hint


@pytest.mark.parametrize("value", [[], {"speed": 9}, {"iters": None, "nme": 1}])
def test_a_recipe_file_with_something_unknown_is_refused(value: Any) -> None:
    with pytest.raises(BadInput, match="unknown"):
        recipes.from_json(value)


def test_end_to_end_steps_need_fixed_integers() -> None:
    assert Recipe(start="gptq", end_to_end=60).end_to_end == 60
    with pytest.raises(BadInput, match='need the start "gptq"') as caught:
        Recipe(start="search", end_to_end=60)
    assert "--end-to-end 0" in caught.value.hint
