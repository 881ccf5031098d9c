"""The Recipe page sets goals, keeps recipes and says the command: what each does to the draft, and what it says."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QDoubleSpinBox
from pytestqt.qtbot import QtBot

from app.pages.recipe import presets
from app.pages.recipe.page import RecipePage
from app.shared.context import Context, Remedy
from app.shared.models.opened import OpenedModel
from core import recipes
from core.bitsmap import BitsMap, Rule
from core.errors import BitwrightError
from core.files import write_json
from core.recipes import Recipe
from core.report.command_line import command_of
from core.schemes import LayerScheme
from tests.app.find import find
from tests.app.pages.recipe.parts import CPU, MACHINE, button, open_more, said_by, write


@pytest.fixture
def page(qtbot: QtBot, context: Context, opened: OpenedModel) -> RecipePage:
    context.draft.choose(model=opened)
    context.draft.set_machine(MACHINE)
    page = RecipePage(context)
    qtbot.addWidget(page)
    page.resize(880, 580)
    page.show()
    return page


# --- goals ---


def test_fit_chooses_the_most_bits_and_says_why(page: RecipePage, context: Context) -> None:
    context.draft.edit_map(BitsMap(LayerScheme(2, 32, False), (Rule("*.down_proj", bits=4),)), "rules")
    button(page, "goal-fit").click()
    assert context.draft.choices.bits_map == BitsMap(LayerScheme(8, 32, False))
    assert said_by(page, "answer").startswith("8 bits: ")
    assert "Undo restores the map" in said_by(page, "answer")
    context.draft.undo_stack.undo()
    assert context.draft.choices.bits_map.default.bits == 2


def test_return_in_the_field_is_the_goal(qtbot: QtBot, page: RecipePage, context: Context) -> None:
    room = find(page, QDoubleSpinBox, "room")
    room.setValue(0.1)
    before = context.draft.choices
    qtbot.keyClick(room.lineEdit(), Qt.Key.Key_Return)
    assert said_by(page, "answer").startswith("Even with 2 bits")
    assert context.draft.choices == before
    assert context.state.value("recipe/room", 8.0) == 0.1


def test_fast_and_best_set_the_recipe(page: RecipePage, context: Context) -> None:
    button(page, "goal-best").click()
    assert context.draft.choices.recipe == recipes.load("best")
    button(page, "goal-fast").click()
    assert context.draft.choices.recipe == recipes.load("quick")


def test_best_saves_memory_on_a_small_machine(page: RecipePage, context: Context) -> None:
    context.draft.set_machine(replace(MACHINE, devices=(replace(CPU, free_memory=1000),)))
    button(page, "goal-best").click()
    assert context.draft.choices.low_memory


def test_the_reason_goes_with_the_next_change(page: RecipePage, context: Context) -> None:
    button(page, "goal-best").click()
    assert said_by(page, "answer")
    context.draft.choose(seed=7)
    assert said_by(page, "answer").startswith("Optional: select a goal")


# --- recipes of the user's own ---


def test_a_recipe_is_kept_as_a_card(qtbot: QtBot, page: RecipePage, context: Context) -> None:
    open_more(page)
    write(qtbot, page, "parameter-iters", "60")
    button(page, "keep").click()
    write(qtbot, page, "recipe-name", "my quick")
    assert page.form.cards.card("my quick").isChecked()
    assert not page.form.cards.card("my quick").modified
    assert not page.form.cards.card("quick").modified
    assert context.draft.choices.recipe == presets.saved()["my quick"]


def test_a_bad_name_is_refused_in_place(qtbot: QtBot, page: RecipePage) -> None:
    button(page, "keep").click()
    write(qtbot, page, "recipe-name", "quick")
    assert said_by(page, "recipe-note").startswith("quick is a built-in recipe.")
    assert presets.saved() == {}


def test_a_kept_recipe_is_there_the_next_time(qtbot: QtBot, context: Context) -> None:
    presets.save(Recipe(iters=7), "poems")
    page = RecipePage(context)
    qtbot.addWidget(page)
    page.show()
    assert "poems" in page.form.cards.names()


def test_a_kept_recipe_can_be_taken_away_and_put_back(qtbot: QtBot, page: RecipePage, context: Context) -> None:
    assert button(page, "remove-recipe").isHidden()
    button(page, "keep").click()
    write(qtbot, page, "recipe-name", "mine")
    kept = presets.saved()["mine"]
    button(page, "remove-recipe").click()
    assert presets.saved() == {}
    assert "mine" not in page.form.cards.names()
    assert context.draft.choices.recipe.name == "default"
    button(page, "restore-recipe").click()
    assert presets.saved() == {"mine": kept}
    assert page.form.cards.card("mine").isChecked()


def test_a_dropped_recipe_is_picked_and_kept(page: RecipePage, context: Context, tmp_path: Path) -> None:
    write_json(tmp_path / "poems.json", Recipe("poems", "For poems.", iters=9).to_json())
    page.open_file(tmp_path / "poems.json")
    assert context.draft.choices.recipe.iters == 9
    assert page.form.cards.card("poems").isChecked()
    assert "poems" in presets.saved()


def test_a_dropped_file_that_is_no_recipe_is_reported(
    page: RecipePage, reports: list[tuple[BitwrightError, Remedy | None]], tmp_path: Path
) -> None:
    write_json(tmp_path / "x.json", {"speed": 9})
    page.open_file(tmp_path / "x.json")
    assert [error.code for error, _ in reports] == ["bad-input"]


# --- the command, and on ---


def test_the_command_is_on_the_clipboard(page: RecipePage, context: Context, said: list[str]) -> None:
    button(page, "copy-command").click()
    text = QGuiApplication.clipboard().text()
    assert text == command_of(context.draft.spec(), Path("unused")).text
    assert said == ["Command copied."]


def test_files_that_the_command_reads_are_there(page: RecipePage, context: Context, said: list[str]) -> None:
    context.draft.edit_map(BitsMap(rules=(Rule("*.down_proj", bits=8),)), "rule")
    button(page, "copy-command").click()
    words = shlex.split(QGuiApplication.clipboard().text())
    assert Path(words[words.index("--bits-map") + 1]).is_file()
    assert "It reads" in said[0]


def test_without_a_model_the_next_page_is_that_of_models(qtbot: QtBot, context: Context, visited: list[str]) -> None:
    bare = RecipePage(context)
    qtbot.addWidget(bare)
    bare.show()
    assert button(bare, "next").text() == "Select a model"
    button(bare, "next").click()
    assert visited == ["model"]


def test_the_next_page_is_layers(page: RecipePage, visited: list[str]) -> None:
    button(page, "next").click()
    assert visited == ["layers"]
