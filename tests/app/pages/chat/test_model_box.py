"""The list of models to pick from, and the question for a folder."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFileDialog, QWidget
from pytestqt.qtbot import QtBot

from app.pages.chat.model_box import ModelBox, ask_folder
from app.shared.chat_choices import ChatChoice, folder

RUN = ChatChoice("/out/tiny-4bit", "tiny-4bit", "W4", "run")


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
    ask_folder(parent, chosen.append)
    dialog = parent.findChild(QFileDialog)
    assert isinstance(dialog, QFileDialog)
    assert dialog.fileMode() == QFileDialog.FileMode.Directory
    dialog.fileSelected.emit("/models/a")
    assert chosen == ["/models/a"]
