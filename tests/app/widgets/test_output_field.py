"""The output folder: suggested, chosen, and judged as a run would judge it."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFileDialog, QLabel, QLineEdit, QPushButton
from pytestqt.qtbot import QtBot

from app.theme import Theme
from app.widgets.output_field import OutputField
from tests.app.find import find


@pytest.fixture
def output(qtbot: QtBot, theme: Theme, tmp_path: Path) -> OutputField:
    widget = OutputField(theme)
    qtbot.addWidget(widget)
    widget.show_output("", tmp_path / "small")
    widget.show()
    return widget


@pytest.fixture
def chosen(output: OutputField) -> list[str]:
    values: list[str] = []
    output.chosen.connect(values.append)
    return values


def note(output: OutputField) -> str:
    label = find(output, QLabel, "output-note")
    return label.text()


def edit(output: OutputField) -> QLineEdit:
    return find(output, QLineEdit, "output")


def press(output: OutputField, name: str) -> None:
    button = find(output, QPushButton, name)
    button.click()


def test_the_suggested_folder_is_shown_and_good(output: OutputField, tmp_path: Path) -> None:
    assert edit(output).placeholderText() == str(tmp_path / "small")
    assert output.problem == ""
    assert note(output).startswith("Suggested folder")


def test_a_written_folder_is_chosen_as_a_whole_path(qtbot: QtBot, output: OutputField, chosen: list[str]) -> None:
    qtbot.keyClicks(edit(output), "~/models/small")
    qtbot.keyClick(edit(output), Qt.Key.Key_Return)
    assert chosen == [str(Path.home() / "models" / "small")]


def test_a_folder_that_is_not_empty_is_refused_in_place(output: OutputField, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    output.show_output(str(tmp_path / "taken"), tmp_path / "taken")
    assert "is not empty" in output.problem
    assert "Choose a folder that is empty" in note(output)


def test_a_folder_that_was_filled_since_is_found_out(qtbot: QtBot, output: OutputField, tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "file").touch()
    with qtbot.waitSignal(output.judged):
        output.check()
    assert output.problem


def test_the_check_leaves_nothing_behind(output: OutputField, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    output.check()
    assert sorted(tmp_path.iterdir()) == before


def test_the_way_back_to_the_suggestion(output: OutputField, chosen: list[str], tmp_path: Path) -> None:
    output.show_output(str(tmp_path / "mine"), tmp_path / "mine")
    press(output, "output-suggested")
    assert chosen == [""]


@pytest.mark.parametrize(("holds", "name"), [([], "there"), (["file"], "there/small")])
def test_a_chosen_folder_is_taken_or_holds_the_new_one(
    output: OutputField, chosen: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holds: list[str], name: str
) -> None:
    (tmp_path / "there").mkdir()
    for file in holds:
        (tmp_path / "there" / file).touch()
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path / "there"))
    press(output, "output-browse")
    assert chosen == [str(tmp_path / name)]


def test_a_dialog_that_is_left_changes_nothing(
    output: OutputField, chosen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: "")
    press(output, "output-browse")
    assert chosen == []
