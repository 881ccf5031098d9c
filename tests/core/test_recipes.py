"""The bundled recipes hold what the field's programs publish, and bad values are refused."""

from __future__ import annotations

import math
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
        ("light", 50, 128, 2048, 8, 0.005, 0.005),
        ("default", 200, 128, 2048, 8, 1 / 200, 1 / 200),
        ("best", 1000, 512, 2048, 8, 1 / 1000, 2 / 1000),
    ],
)
def test_the_published_recipes(
    name: str, iters: int, samples: int, seqlen: int, batch: int, rate_at_4: float, rate_at_2: float
) -> None:
    recipe = recipes.load(name)
    assert (recipe.iters, recipe.samples, recipe.seqlen, recipe.batch_size) == (iters, samples, seqlen, batch)
    assert recipe.learning_rate(4) == pytest.approx(rate_at_4)
    assert recipe.learning_rate(2) == pytest.approx(rate_at_2)


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
    assert (recipe.iters, recipe.samples) == (10, 128)


def test_the_range_rate_follows_the_rounding_rate_unless_given() -> None:
    assert Recipe(iters=100).range_rate(4) == pytest.approx(0.01)
    assert Recipe(iters=100, minmax_lr=0.5).range_rate(2) == 0.5


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
    assert "end_to_end to 0" in caught.value.hint
