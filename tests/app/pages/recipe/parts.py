"""Finding, reading and pressing the parts of the Recipe page by the names that they go by in tests."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLabel, QLineEdit, QPushButton, QToolButton
from pytestqt.qtbot import QtBot

from app.pages.recipe.page import RecipePage
from app.widgets.segmented import Segmented
from core.inference.machine import Device, Machine
from tests.app.find import find

CPU = Device("cpu", "cpu", "Some CPU", 0, 8_000_000_000)
MACHINE = Machine((CPU,), {"cpu": 1e11}, "cpu")


def button(page: RecipePage, name: str) -> QPushButton:
    return find(page, QPushButton, name)


def said_by(page: RecipePage, name: str) -> str:
    found = find(page, QLabel, name)
    return "" if found.isHidden() else found.text()


def press_segment(qtbot: QtBot, page: RecipePage, name: str, value: object) -> None:
    found = find(page, Segmented, name)
    qtbot.mouseClick(found.button(value), Qt.MouseButton.LeftButton)


def write(qtbot: QtBot, page: RecipePage, name: str, text: str) -> None:
    edit = find(page, QLineEdit, name)
    edit.clear()
    qtbot.keyClicks(edit, text)
    qtbot.keyClick(edit, Qt.Key.Key_Return)


def open_more(page: RecipePage) -> None:
    found = find(page, QToolButton, "more")
    found.click()
