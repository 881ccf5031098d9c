"""A Model page with a scripted service."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from PySide6.QtWidgets import QLabel, QWidget
from pytestqt.qtbot import QtBot

from app.pages.model.page import ModelPage
from core.service.messages import OpenModel
from tests.app.find import find
from tests.app.recorded_calls import RecordedCalls

if TYPE_CHECKING:
    from app.shared.context import Context
    from app.shared.models.opened import OpenedModel


def shown_page(qtbot: QtBot, context: Context, calls: RecordedCalls) -> ModelPage:
    """The page at the size that the smallest window leaves it."""
    service: Any = calls
    made = ModelPage(replace(context, calls=service))
    qtbot.addWidget(made)
    made.resize(880, 580)
    with qtbot.waitExposed(made):
        made.show()
    return made


def open_as(page: ModelPage, calls: RecordedCalls, opened: OpenedModel) -> None:
    """Ask for a model and let the service answer."""
    page.open_model(opened.name)
    calls.of(OpenModel)[-1].on_success(opened)


def text_of(page: QWidget, name: str) -> str:
    """What a label of this name says."""
    return find(page, QLabel, name).text()
