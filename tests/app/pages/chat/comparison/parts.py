"""A comparison with scripted sessions, and access to its widgets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PySide6.QtWidgets import QAbstractButton, QLabel, QWidget

from app.pages.chat.comparison.view import ComparisonView
from tests.app.scripted_session import ANSWERED, OPENED, ScriptedCalls, ScriptedSession

LEFT = "left"
RIGHT = "right"


def folders(root: Path, size: int = 1000) -> tuple[str, str]:
    """Two folders that hold as many bytes of weights."""
    found = []
    for name in ("original", "quantized"):
        folder = root / name
        folder.mkdir()
        with (folder / "model.safetensors").open("wb") as stream:
            stream.truncate(size)
        found.append(str(folder))
    return found[0], found[1]


def button(view: QWidget, name: str) -> QAbstractButton:
    """The one button of this name that is offered."""
    found = [each for each in view.findChildren(QAbstractButton, name) if each.isVisibleTo(view)]
    assert len(found) == 1, f"{len(found)} buttons {name}"
    return found[0]


def label_of(view: QWidget, name: str) -> str:
    """What the last label of this name says."""
    found = [each for each in view.findChildren(QLabel, name) if each.isVisibleTo(view)]
    return found[-1].text() if found else ""


def child_of(calls: ScriptedCalls, model: str) -> ScriptedSession:
    """The latest child that was asked to load a model of this name."""
    return next(each for each in reversed(calls.sessions) if Path(each.calls[0].request.model).name == model)


def load(child: ScriptedSession, **changes: Any) -> None:
    """The model is in memory."""
    child.calls[0].succeed(OPENED, **{"label": Path(child.calls[0].request.model).name, **changes})


def asked(
    view: ComparisonView, calls: ScriptedCalls, question: str = "hello"
) -> tuple[ScriptedSession, ScriptedSession]:
    """Both models, loaded for this question and about to answer."""
    view.ask(question)
    left, right = child_of(calls, "original"), child_of(calls, "quantized")
    load(left)
    load(right)
    return left, right


def answer(child: ScriptedSession, *pieces: str, **changes: Any) -> None:
    """The child answers in these tokens."""
    text = "".join(pieces)
    child.calls[-1].say(text)
    child.calls[-1].succeed(ANSWERED, text=text, pieces=list(pieces), tokens=len(pieces), **changes)


def texts(view: ComparisonView) -> list[str]:
    """Both answers of the last turn as they are shown."""
    return [bubble.text for bubble in view._turn_list.turns[-1].answers]
