"""Every page for everybody: names for a screen reader, reachable by keyboard, within the room there is."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import pytest
from PySide6.QtCore import QSize, Qt
from PySide6.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSlider,
    QAbstractSpinBox,
    QComboBox,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
    QProgressBar,
    QScrollBar,
    QTextEdit,
    QWidget,
)  # fmt: skip
from pytestqt.qtbot import QtBot

from app.context import Context
from app.logs import LogFeed
from app.main_window import MainWindow
from app.page_stack import PAGES, PageEntry
from tests.app import frame_pages

INTERACTIVE = (
    QAbstractButton, QAbstractItemView, QAbstractSlider, QAbstractSpinBox, QComboBox, QLineEdit, QPlainTextEdit,
    QProgressBar, QTextEdit,
)  # fmt: skip
ROOM = QSize(880, 580)
"""What a page has of a window of 1024 by 700."""


@pytest.fixture(params=PAGES, ids=[page.id for page in PAGES])
def page(request: pytest.FixtureRequest, qtbot: QtBot, context: Context) -> QWidget:
    entry: PageEntry = request.param
    made: QWidget = getattr(importlib.import_module(entry.module), entry.cls)(context)
    qtbot.addWidget(made)
    made.resize(ROOM)
    return made


@pytest.fixture
def window(qtbot: QtBot, context: Context) -> MainWindow:
    made = MainWindow(
        context.theme, context.state, LogFeed(), pages=frame_pages.PAGES, make_context=lambda _window: context
    )
    qtbot.addWidget(made)
    return made


def interactive(root: QWidget) -> Iterator[QWidget]:
    """What a person can use, but for what belongs to the inside of another widget."""
    for widget in (root, *root.findChildren(QWidget)):
        inside = widget.parent() if isinstance(widget.parent(), QAbstractSpinBox | QComboBox) else None
        qts_own = widget.objectName().startswith("qt_")
        if isinstance(widget, INTERACTIVE) and not isinstance(widget, QScrollBar) and inside is None and not qts_own:
            yield widget


def unnamed(root: QWidget) -> list[str]:
    """The interactive widgets that a screen reader could only call by their kind."""
    buddies = {label.buddy() for label in root.findChildren(QLabel) if label.buddy() is not None}
    found = []
    for widget in interactive(root):
        text = widget.text().replace("&", "").strip() if isinstance(widget, QAbstractButton) else ""
        if not (text or widget.accessibleName() or widget in buddies):
            found.append(f"{type(widget).__name__} {widget.objectName()!r} in {type(widget.parent()).__name__}")
    return found


def test_every_widget_of_a_page_has_a_name(page: QWidget) -> None:
    assert unnamed(page) == []


def test_every_widget_of_the_frame_has_a_name(window: MainWindow) -> None:
    assert [name for name in unnamed(window) if "SmallPage" not in name] == []


def test_the_walk_finds_a_widget_without_a_name(qtbot: QtBot) -> None:
    root = QWidget()
    qtbot.addWidget(root)
    QLineEdit(root).setObjectName("anonymous")
    assert unnamed(root) == ["QLineEdit 'anonymous' in QWidget"]


def test_everything_on_a_page_can_be_reached_by_keyboard(page: QWidget) -> None:
    deaf = [
        f"{type(widget).__name__} {widget.objectName()!r}"
        for widget in interactive(page)
        if not isinstance(widget, QProgressBar) and not widget.focusPolicy() & Qt.FocusPolicy.TabFocus
        and widget.focusProxy() is None
    ]  # fmt: skip
    assert deaf == []


def test_a_page_fits_a_small_window(page: QWidget) -> None:
    page.show()
    smallest = page.minimumSizeHint().expandedTo(page.minimumSize())
    assert smallest.width() <= ROOM.width()
    assert smallest.height() <= ROOM.height()


def test_a_page_has_its_title_and_its_id(page: QWidget) -> None:
    entry = next(entry for entry in PAGES if entry.cls == type(page).__name__)
    assert (page.page_id, bool(page.title)) == (entry.id, True)
