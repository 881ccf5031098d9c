"""A Convert page with a scripted service, and access to its widgets."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from PySide6.QtWidgets import QLabel, QPushButton
from pytestqt.qtbot import QtBot

from app.pages.convert.page import ConvertPage
from core.service.messages import SurveyConversions
from tests.app.find import find
from tests.app.pages.convert.possible_rows import SURVEY
from tests.app.recorded_calls import RecordedCalls

if TYPE_CHECKING:
    from app.shared.context import Context


def shown_page(qtbot: QtBot, context: Context, calls: RecordedCalls) -> ConvertPage:
    """The page at the size that the smallest window leaves it."""
    service: Any = calls
    made = ConvertPage(replace(context, calls=service))
    qtbot.addWidget(made)
    made.resize(880, 580)
    with qtbot.waitExposed(made):
        made.show()
    return made


def look_at(page: ConvertPage, calls: RecordedCalls, name: str = "/m/small", survey: Any = SURVEY) -> None:
    """Pick a model and let the service answer."""
    page.open_model(name)
    calls.of(SurveyConversions)[-1].on_success(survey)


def choose(page: ConvertPage, format_name: str) -> None:
    """Choose the row of a format."""
    for number in range(page.table.rowCount()):
        row = page.table.row_at(number)
        if row is not None and row.format == format_name:
            page.view.selectRow(number)


def said(page: ConvertPage, name: str) -> str:
    """What a label says, "" while it is hidden."""
    found = find(page, QLabel, name)
    return found.text() if found.isVisible() else ""


def button(page: ConvertPage, name: str) -> QPushButton:
    """The button of this name."""
    return find(page, QPushButton, name)
