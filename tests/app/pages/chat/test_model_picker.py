"""The models that can be selected, the list of them, and the dialog for a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFileDialog, QWidget
from pytestqt.qtbot import QtBot

from app.pages.chat.model_picker import KnownModels, ModelBox, choose_folder
from app.shared.context import Context
from app.shared.models.choices import ModelChoice, folder
from app.shared.models.opened import OpenedModel
from core.service.messages import OutputModel
from tests.app.pages.chat.parts import PlayedRuns
from tests.app.scripted_session import ScriptedCalls

MADE = OutputModel(Path("/out/new"), "", "W4", "x/y", 0.0)


@pytest.fixture
def known(surroundings: Context) -> KnownModels:
    return KnownModels(surroundings)


def names(known: KnownModels) -> list[str]:
    return [choice.name for choice in known.choices]


def test_before_the_first_look_there_are_no_runs(known: KnownModels) -> None:
    assert (known.scanned, names(known)) == (False, [])


def test_what_runs_made_stands_before_the_original_and_folders(
    known: KnownModels, surroundings: Context, calls: ScriptedCalls, opened: OpenedModel
) -> None:
    calls.outputs = [MADE]
    surroundings.draft.choose(model=opened)
    known.add_folder("/models/a")
    known.rescan()
    assert names(known) == ["/out/new", opened.name, "/models/a"]


def test_a_folder_is_known_once(known: KnownModels) -> None:
    assert [known.add_folder("/models/a"), known.add_folder("/models/a")] == [True, False]
    assert names(known) == ["/models/a"]


def test_the_end_of_a_run_is_a_reason_to_look(known: KnownModels, runs: PlayedRuns, calls: ScriptedCalls) -> None:
    calls.outputs = [MADE]
    runs.ended.emit(None)
    assert names(known) == ["/out/new"]


RUN = ModelChoice("/out/tiny-4bit", "tiny-4bit", "W4", "run")


@pytest.fixture
def box(qtbot: QtBot) -> ModelBox:
    made = ModelBox()
    qtbot.addWidget(made)
    return made


def test_a_line_stands_where_another_kind_begins(box: ModelBox) -> None:
    box.offer([RUN, folder("/models/a"), folder("/models/b")])
    assert [box.itemText(place) for place in range(box.count())] == ["tiny-4bit", "", "a", "b"]


def test_what_was_offered_before_is_gone(box: ModelBox) -> None:
    box.offer([RUN])
    box.offer([folder("/models/a")])
    assert [box.itemData(place) for place in range(box.count())] == ["/models/a"]


def test_a_name_is_no_markup(box: ModelBox) -> None:
    box.offer([folder("/models/<b>a")])
    assert "&lt;b&gt;a" in box.itemData(0, Qt.ItemDataRole.ToolTipRole)


def test_the_folder_that_was_chosen_is_told(qtbot: QtBot) -> None:
    parent, chosen = QWidget(), list[str]()
    qtbot.addWidget(parent)
    choose_folder(parent, chosen.append)
    dialog = parent.findChild(QFileDialog)
    assert isinstance(dialog, QFileDialog)
    assert dialog.fileMode() == QFileDialog.FileMode.Directory
    dialog.fileSelected.emit("/models/a")
    assert chosen == ["/models/a"]
