"""Recipes of the user's own: kept, found again, opened from elsewhere, taken away."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from app.pages.recipe import presets
from core import recipes
from core.errors import BadInput, BitwrightError
from core.files import write_json
from core.recipes import Recipe


def test_without_a_folder_there_are_none() -> None:
    assert presets.saved() == {}


def test_a_kept_recipe_is_found_again() -> None:
    kept = presets.save(replace(recipes.load("light"), iters=77), "my light")
    assert kept.name == "my light"
    assert kept.purpose == "Your recipe: 77 steps, 64 x 512 tokens."
    assert presets.saved() == {"my light": kept}
    assert recipes.load(str(presets.path_of("my light"))) == kept


def test_words_of_ones_own_stay() -> None:
    assert presets.save(Recipe("x", "For poems."), "poems").purpose == "For poems."


def test_keeping_again_replaces() -> None:
    presets.save(Recipe(iters=5), "mine")
    presets.save(Recipe(iters=6), "mine")
    assert [recipe.iters for recipe in presets.saved().values()] == [6]
    assert presets.saved()["mine"].purpose.startswith("Your recipe: 6 steps")


@pytest.mark.parametrize("name", ["", "  ", "a/b", "..", ".hidden", "nul\0", "ends.", "x" * 61, "quick", "rtn"])
def test_a_name_that_cannot_be_is_refused(name: str) -> None:
    with pytest.raises(BadInput):
        presets.save(Recipe(), name)
    assert presets.saved() == {}


def test_a_broken_file_is_passed_over() -> None:
    presets.save(Recipe(), "good")
    presets.path_of("bad").write_text("{", encoding="utf-8")
    assert list(presets.saved()) == ["good"]


def test_a_file_renamed_by_hand_goes_by_its_file() -> None:
    presets.save(Recipe(), "old")
    presets.path_of("old").rename(presets.path_of("new"))
    assert presets.saved()["new"].name == "new"


def test_a_recipe_file_is_kept_as_a_copy(tmp_path: Path) -> None:
    write_json(tmp_path / "shared.json", Recipe("poems", "For poems.", iters=9).to_json())
    assert presets.adopt(tmp_path / "shared.json").name == "poems"
    assert presets.saved()["poems"].iters == 9


def test_a_recipe_without_a_name_of_its_own_goes_by_its_file(tmp_path: Path) -> None:
    write_json(tmp_path / "shared.json", replace(recipes.load("quick"), iters=9).to_json())
    assert presets.adopt(tmp_path / "shared.json").name == "shared"


def test_a_bundled_recipe_is_itself(tmp_path: Path) -> None:
    write_json(tmp_path / "shared.json", recipes.load("light").to_json())
    assert presets.adopt(tmp_path / "shared.json") == recipes.load("light")
    assert presets.saved() == {}


def test_another_recipe_of_the_same_name_gets_a_number(tmp_path: Path) -> None:
    presets.save(Recipe(iters=1), "poems")
    write_json(tmp_path / "shared.json", Recipe("poems", iters=2).to_json())
    assert presets.adopt(tmp_path / "shared.json").name == "poems 2"
    assert presets.adopt(tmp_path / "shared.json").name == "poems 2"
    assert {name: recipe.iters for name, recipe in presets.saved().items()} == {"poems": 1, "poems 2": 2}


def test_what_is_no_recipe_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "map.json", {"version": 1, "rules": []})
    with pytest.raises(BitwrightError, match="unknown"):
        presets.adopt(tmp_path / "map.json")


def test_a_removed_recipe_is_gone_and_may_be_removed_again() -> None:
    presets.save(Recipe(), "mine")
    presets.remove("mine")
    presets.remove("mine")
    assert presets.saved() == {}
