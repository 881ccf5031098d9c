"""The sheet of keyboard shortcuts: content, position and closing."""

from __future__ import annotations

import pytest
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QLabel, QPushButton, QToolButton, QWidget
from pytestqt.qtbot import QtBot

from app.frame import actions
from app.frame.shortcuts_sheet import ShortcutsSheet, groups_of
from app.theme import Theme
from tests.app.find import find


@pytest.fixture
def ground(qtbot: QtBot) -> QWidget:
    made = QWidget()
    qtbot.addWidget(made)
    made.resize(900, 580)
    made.show()
    return made


@pytest.fixture
def sheet(theme: Theme, ground: QWidget) -> ShortcutsSheet:
    made = ShortcutsSheet(theme, ground)
    made.fill(groups_of((*actions.page_entries((("model", "Model"),)), *actions.TABLE), {}))
    return made


def test_every_key_of_the_table_is_told(sheet: ShortcutsSheet) -> None:
    said = {label.text() for label in sheet.findChildren(QLabel)}
    missing = [entry.text for entry in actions.TABLE if entry.keys and entry.text not in said]
    assert missing == []


def test_keys_of_pages_are_told(qtbot: QtBot) -> None:
    class Page(QWidget):
        title = "Layers"
        keys = (("2", "Two bits"),)

    page = Page()
    qtbot.addWidget(page)
    action = QAction("&Select all", page)
    action.setShortcut("Ctrl+A")
    page.addAction(action)
    assert groups_of((), {"layers": page}) == [("Layers", [("Ctrl+A", "Select all"), ("2", "Two bits")])]


def test_it_lies_within_its_parent_also_after_that_shrank(sheet: ShortcutsSheet, ground: QWidget) -> None:
    sheet.present()
    assert ground.rect().contains(sheet.geometry())
    ground.resize(500, 300)
    assert ground.rect().contains(sheet.geometry())


def test_closing_it_gives_the_keyboard_back(qtbot: QtBot, sheet: ShortcutsSheet, ground: QWidget) -> None:
    button = QPushButton("here", ground)
    button.show()
    ground.activateWindow()
    qtbot.waitActive(ground)
    button.setFocus()
    sheet.present()
    assert ground.focusWidget() is not button
    find(sheet, QToolButton, "sheet_close").click()
    assert ground.focusWidget() is button
