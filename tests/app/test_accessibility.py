"""Accessibility of every page: names, keyboard access, and layout."""

from __future__ import annotations

import importlib

import pytest
from PySide6.QtCore import QSize
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QLineEdit, QWidget
from pytestqt.qtbot import QtBot

from app.frame.main_window import MainWindow
from app.frame.page_stack import PAGES, PageEntry
from app.logs import LogFeed
from app.shared.context import Context, Remedy
from app.shared.models.opened import OpenedModel
from core.errors import BadInput
from tests.app import frame_pages
from tests.app.find import find
from tests.app.reading_aloud import unnamed, unreachable

ROOM = QSize(880, 580)
"""Size of a page in a window of 1024 by 700."""


@pytest.fixture(params=["empty", "with a model"])
def choices(request: pytest.FixtureRequest, context: Context, opened: OpenedModel) -> Context:
    """A window before and after a model was picked."""
    if request.param != "empty":
        context.draft.choose(model=opened)
    return context


@pytest.fixture(params=PAGES, ids=[page.id for page in PAGES])
def page(request: pytest.FixtureRequest, qtbot: QtBot, choices: Context) -> QWidget:
    entry: PageEntry = request.param
    made: QWidget = getattr(importlib.import_module(entry.module), entry.cls)(choices)
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


def test_every_widget_of_a_page_has_a_name(page: QWidget) -> None:
    assert unnamed(page) == []


def test_every_widget_of_the_frame_has_a_name(qtbot: QtBot, window: MainWindow) -> None:
    with qtbot.waitSignal(window.stack.complete):
        window.show()
    window.report(BadInput("Something is wrong.", "Do this."), Remedy("Do it", lambda: None))
    find(window, QAction, "action.log").trigger()
    find(window, QAction, "action.shortcuts").trigger()
    assert [name for name in unnamed(window) if "SmallPage" not in name] == []


def test_the_walk_finds_a_widget_without_a_name(qtbot: QtBot) -> None:
    root = QWidget()
    qtbot.addWidget(root)
    QLineEdit(root).setObjectName("anonymous")
    assert unnamed(root) == ["QLineEdit 'anonymous' in QWidget"]


def test_everything_on_a_page_can_be_reached_by_keyboard(page: QWidget) -> None:
    assert unreachable(page) == []


def test_a_page_fits_a_small_window(page: QWidget) -> None:
    page.show()
    smallest = page.minimumSizeHint().expandedTo(page.minimumSize())
    assert smallest.width() <= ROOM.width()
    assert smallest.height() <= ROOM.height()


def test_a_page_has_its_title_and_its_id(page: QWidget) -> None:
    entry = next(entry for entry in PAGES if entry.cls == type(page).__name__)
    assert (getattr(page, "page_id", ""), bool(getattr(page, "title", ""))) == (entry.id, True)
