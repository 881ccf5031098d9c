"""The Run page before a run: choices of other pages, and the smallest window."""

from __future__ import annotations

import pytest
from PySide6.QtWidgets import QPushButton, QScrollArea
from pytestqt.qtbot import QtBot

from app.pages.run.page import RunPage
from app.shared.context import Context
from app.shared.models.opened import OpenedModel
from tests.app.find import find

SMALLEST = (880, 580)


@pytest.fixture
def place(qtbot: QtBot, context: Context) -> QScrollArea:
    """The page where the window puts it."""
    area = QScrollArea()
    qtbot.addWidget(area)
    area.setWidgetResizable(True)
    area.setWidget(RunPage(context))
    area.resize(*SMALLEST)
    area.show()
    return area


def test_a_model_that_was_picked_on_another_page_is_known_when_this_one_is_shown(
    place: QScrollArea, context: Context, opened: OpenedModel
) -> None:
    page = find(place, RunPage)
    page.hide()
    context.draft.choose(model=opened)
    page.show()
    found = find(page, QPushButton, "welcome_button")
    assert found.text() == "Quantize"


def test_the_page_does_not_scroll_in_the_smallest_window(place: QScrollArea) -> None:
    assert place.verticalScrollBar().maximum() == 0
