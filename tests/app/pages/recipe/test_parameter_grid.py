"""Parameters: valid values are accepted at once, invalid ones show an error in place; every change can be reset."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QCheckBox, QLabel, QLineEdit, QPushButton
from pytestqt.qtbot import QtBot

from app.pages.recipe.parameter_grid import ParameterGrid
from app.theme import Theme
from core import recipes
from tests.app.find import find

BASE = replace(recipes.load("autoround"), iters=40, samples=16, batch_size=2)
JOB = {"seed": 42, "low_memory": False, "memory": None, "compile": False}


@pytest.fixture
def grid(qtbot: QtBot, theme: Theme) -> ParameterGrid:
    widget = ParameterGrid(theme)
    qtbot.addWidget(widget)
    widget.show_values(BASE, BASE, JOB)
    widget.resize(880, 500)
    widget.show()
    return widget


@pytest.fixture
def turned(grid: ParameterGrid) -> list[tuple[str, Any]]:
    values: list[tuple[str, Any]] = []

    def follow(key: str, value: Any) -> None:
        """As the page: the grid is shown what was taken."""
        values.append((key, value))
        job = {**JOB, key: value} if key in JOB else JOB
        recipe = BASE if key in JOB else replace(BASE, **{key: value})
        grid.show_values(recipe, BASE, job)

    grid.turned.connect(follow)
    return values


def field(grid: ParameterGrid, key: str) -> QLineEdit:
    return find(grid, QLineEdit, f"parameter-{key}")


def reset(grid: ParameterGrid, key: str) -> QPushButton:
    return find(grid, QPushButton, f"reset-{key}")


def problem(grid: ParameterGrid, key: str) -> str:
    found = find(grid, QLabel, f"problem-{key}")
    return "" if found.isHidden() else found.text()


def write(qtbot: QtBot, grid: ParameterGrid, key: str, text: str) -> None:
    edit = field(grid, key)
    edit.selectAll()
    qtbot.keyClick(edit, Qt.Key.Key_Backspace)
    qtbot.keyClicks(edit, text)
    qtbot.keyClick(edit, Qt.Key.Key_Return)


def test_a_possible_value_is_taken(qtbot: QtBot, grid: ParameterGrid, turned: list[tuple[str, Any]]) -> None:
    write(qtbot, grid, "iters", "60")
    assert turned[-1] == ("iters", 60)
    assert problem(grid, "iters") == ""


def test_it_is_taken_while_it_is_typed(qtbot: QtBot, grid: ParameterGrid, turned: list[tuple[str, Any]]) -> None:
    qtbot.keyClicks(field(grid, "iters"), "0")
    assert turned == [("iters", 400)]


def test_a_changed_parameter_has_a_dot_and_a_way_back(
    qtbot: QtBot, grid: ParameterGrid, turned: list[tuple[str, Any]]
) -> None:
    assert not grid.row("samples").changed
    assert reset(grid, "samples").isHidden()
    write(qtbot, grid, "samples", "32")
    assert grid.row("samples").changed
    qtbot.mouseClick(reset(grid, "samples"), Qt.MouseButton.LeftButton)
    assert turned[-1] == ("samples", 16)
    assert field(grid, "samples").text() == "16"
    assert not grid.row("samples").changed


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        ("seqlen", "4", "seqlen 4 is not possible. Choose a whole number from 8 to 1000000."),
        ("batch_size", "two", "batch size 'two' is not possible."),
        ("lr", "11", "lr 11.0 is not possible. Choose a number above 0 and at most 10."),
        ("seed", "-1", "Seed -1 is not possible."),
    ],
)
def test_an_impossible_value_is_refused_in_place(
    qtbot: QtBot, grid: ParameterGrid, turned: list[tuple[str, Any]], key: str, text: str, words: str
) -> None:
    write(qtbot, grid, key, text)
    assert problem(grid, key).startswith(words)
    assert field(grid, key).text() == text
    assert all(value != text for _, value in turned)


def test_typing_on_takes_the_complaint_away(qtbot: QtBot, grid: ParameterGrid, turned: list[tuple[str, Any]]) -> None:
    write(qtbot, grid, "seqlen", "4")
    qtbot.keyClicks(field(grid, "seqlen"), "0")
    assert problem(grid, "seqlen") == ""
    assert turned[-1] == ("seqlen", 40)


def test_escape_brings_the_value_back(qtbot: QtBot, grid: ParameterGrid, turned: list[tuple[str, Any]]) -> None:
    write(qtbot, grid, "batch_size", "no")
    qtbot.keyClick(field(grid, "batch_size"), Qt.Key.Key_Escape)
    assert field(grid, "batch_size").text() == "2"
    assert problem(grid, "batch_size") == ""
    assert turned == []


def test_another_recipe_replaces_what_was_refused(qtbot: QtBot, grid: ParameterGrid) -> None:
    write(qtbot, grid, "seqlen", "4")
    light = recipes.load("autoround-light")  # with the same number of tokens per sample
    grid.show_values(light, light, JOB)
    assert field(grid, "seqlen").text() == "2048"
    assert problem(grid, "seqlen") == ""


def test_a_rate_that_the_start_does_not_use_is_disabled_and_says_why(qtbot: QtBot, grid: ParameterGrid) -> None:
    write(qtbot, grid, "lr", "11")
    started = recipes.load("quick")
    grid.show_values(started, started, JOB)
    assert not field(grid, "lr").isEnabled()
    assert (field(grid, "lr").text(), problem(grid, "lr")) == ("", "")
    assert "Not used" in field(grid, "lr").accessibleDescription()
    assert any("Not used" in label.text() for label in grid.row("lr").findChildren(QLabel))
    assert field(grid, "minmax_lr").isEnabled()
    grid.show_values(BASE, BASE, JOB)
    assert field(grid, "lr").isEnabled()


def test_a_change_elsewhere_leaves_what_was_refused(qtbot: QtBot, grid: ParameterGrid) -> None:
    write(qtbot, grid, "seqlen", "4")
    grid.show_values(replace(BASE, iters=41), BASE, JOB)
    assert field(grid, "seqlen").text() == "4"
    assert problem(grid, "seqlen") != ""


def test_an_empty_rate_follows_the_steps(grid: ParameterGrid) -> None:
    assert field(grid, "lr").text() == ""
    assert field(grid, "lr").placeholderText() == "0.025"
    grid.show_values(replace(BASE, iters=100), BASE, JOB)
    assert field(grid, "lr").placeholderText() == "0.01"


def test_a_switch_turns_and_goes_back(qtbot: QtBot, grid: ParameterGrid, turned: list[tuple[str, Any]]) -> None:
    box = find(grid, QCheckBox, "parameter-low_memory")
    box.click()
    assert grid.row("low_memory").changed
    qtbot.mouseClick(reset(grid, "low_memory"), Qt.MouseButton.LeftButton)
    assert turned == [("low_memory", True), ("low_memory", False)]
    assert not box.isChecked()


def test_two_columns_where_there_is_room_and_one_where_not(qtbot: QtBot, grid: ParameterGrid) -> None:
    assert grid.row("compile").x() > grid.row("iters").x()
    grid.resize(600, 900)
    qtbot.waitUntil(lambda: grid.row("compile").x() == grid.row("iters").x())


def test_every_row_tells_its_default(grid: ParameterGrid) -> None:
    texts = [label.text() for label in grid.row("minmax_lr").findChildren(QLabel)]
    assert any(text.endswith("Default: automatic.") for text in texts)
