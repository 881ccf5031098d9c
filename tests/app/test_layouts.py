"""The window at its smallest size, in the fonts of common desktops."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from PySide6.QtCore import QPoint
from PySide6.QtGui import QFont, QFontDatabase
from PySide6.QtWidgets import QApplication, QScrollArea, QToolButton
from pytestqt.qtbot import QtBot

from app.frame.main_window import MainWindow
from app.frame.page_stack import PAGES
from app.logs import LogFeed
from app.pages.layers.page import LayersPage
from app.pages.layers.side_panel import VIEWS
from app.shared.context import Context
from app.shared.models.opened import OpenedModel
from tests.app import faces
from tests.app.faces import FACES, Face

SMALLEST = (1024, 700)


@pytest.fixture(params=FACES, ids=lambda face: f"{face.family} {face.points}")
def face(request: pytest.FixtureRequest, qapp: QApplication) -> Iterator[Face]:
    """Provide each font; skip fonts that are not in a package and not installed."""
    chosen: Face = request.param
    if chosen.family not in QFontDatabase.families():
        pytest.skip(f"this machine does not have the font {chosen.family}")
    before = QFont(qapp.font())
    faces.wear(qapp, chosen)
    yield chosen
    qapp.setFont(before)


@pytest.fixture
def window(qtbot: QtBot, face: Face, context: Context, opened: OpenedModel) -> MainWindow:
    """The window with every page, a model picked, at its smallest size."""
    made = MainWindow(context.theme, context.state, LogFeed(), make_context=lambda _window: context)
    qtbot.addWidget(made)
    context.draft.choose(model=opened)
    made.resize(*SMALLEST)
    with qtbot.waitSignal(made.stack.complete, timeout=60_000):
        made.show()
    return made


def test_no_page_needs_more_room_than_the_smallest_window_has(window: MainWindow, face: Face) -> None:
    too_wide, too_high = set(), set()
    for entry in PAGES:
        window.go(entry.id)
        QApplication.processEvents()
        place = window.stack.currentWidget()
        assert isinstance(place, QScrollArea)
        if place.horizontalScrollBar().maximum():
            too_wide.add(entry.id)
        if place.verticalScrollBar().maximum():
            too_high.add(entry.id)
    # The figures of a run and its plot, one below the other, may scroll in large print.
    assert (too_wide, too_high - ({"run"} if face.points > 12 else set())) == (set(), set())


@pytest.mark.parametrize("view", VIEWS)
def test_the_end_of_the_layers_panel_stays_in_sight(window: MainWindow, view: str) -> None:
    window.go("layers")
    page = window.stack.page("layers")
    assert isinstance(page, LayersPage)
    page.select_all()
    page.body.side.show_view(view)
    QApplication.processEvents()
    button = page.body.side.next
    bottom = button.mapTo(window, QPoint(0, button.height())).y()
    assert bottom <= window.height() - window.statusBar().height()


def test_every_name_in_the_rail_is_whole(window: MainWindow) -> None:
    cut = [
        button.text()
        for button in window.rail.findChildren(QToolButton)
        if button.fontMetrics().horizontalAdvance(button.text()) > button.width()
    ]
    assert cut == []
