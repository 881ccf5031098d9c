"""A chat page with a scripted session, and access to its widgets."""

from __future__ import annotations

from typing import Any, TypeVar

from PySide6.QtCore import QObject, Signal
from PySide6.QtWidgets import QAbstractButton, QLabel, QWidget
from pytestqt.qtbot import QtBot

from app.pages.chat.message_view import MessageView
from app.pages.chat.page import ChatPage
from app.pages.chat.transcript import Transcript
from app.shared.context import Context
from core.inference.backends.backend import BackendRow
from core.service.messages import Say
from tests.app.find import find
from tests.app.scripted_session import ANSWERED, OPENED, ScriptedCalls
from tests.app.surroundings import surroundings_with

Shown = TypeVar("Shown", bound=QWidget)
MODEL = "/models/tiny-4bit"
ROWS = (
    BackendRow("native", "Native kernels", True, "2 to 8 bits", layers=14),
    BackendRow("portable", "Portable torch", True, "all", "Others are faster."),
    BackendRow("ark", "auto-round-lib", False, "2, 4 and 8 bits", "It is not installed.", "pip install auto-round-lib"),
)
"""Table of backends of a loaded model."""


class PlayedRuns(QObject):
    """As much of `app.shared.run.runs.Runs` as the page looks at."""

    changed = Signal()
    started = Signal()
    ended = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.record: Any = None
        self.active = False


def played(context: Context, calls: ScriptedCalls, runs: PlayedRuns) -> Context:
    """Surroundings whose child and whose run are played."""
    return surroundings_with(context, calls=calls, runs=runs)


def shown(qtbot: QtBot, widget: Shown, width: int, height: int) -> Shown:
    """A widget by itself, on the screen at this size until the test is over."""
    qtbot.addWidget(widget)
    widget.resize(width, height)
    widget.show()
    return widget


def shown_page(qtbot: QtBot, surroundings: Context, model: str = MODEL) -> ChatPage:
    """The page at the size that the smallest window leaves it, with a model picked."""
    page = ChatPage(surroundings)
    qtbot.addWidget(page)
    if model:
        page.open_model(model)
    page.resize(880, 580)
    page.show()
    return page


def button(page: ChatPage, name: str) -> QAbstractButton:
    """The one button of this name that is offered."""
    found = [each for each in page.findChildren(QAbstractButton, name) if not each.isHidden()]
    assert len(found) == 1, f"{len(found)} buttons {name}"
    return found[0]


def label_of(page: QWidget, name: str) -> str:
    """What a label says; nothing where it cannot be seen."""
    found = find(page, QLabel, name)
    return found.text() if found.isVisible() else ""


def bubbles(page: ChatPage) -> list[str]:
    """The messages that are shown."""
    transcript = find(page, Transcript)
    return [view.text for view in transcript.messages]


def last_bubble(page: ChatPage) -> MessageView:
    """The last of them."""
    transcript = find(page, Transcript)
    return transcript.messages[-1]


def asked(page: ChatPage, calls: ScriptedCalls, text: str = "hello") -> None:
    """A loaded model that is asked something."""
    page.send(text)
    calls.last.succeed(OPENED)
    assert isinstance(calls.last.request, Say)


def answered(page: ChatPage, calls: ScriptedCalls, text: str = "hi", **figures: Any) -> None:
    """The child answers the question."""
    calls.last.say(text)
    calls.last.succeed(ANSWERED, text=text, **figures)
