"""A complete workflow without fakes: folder, main buttons by keyboard, a real run, and an answer."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLabel
from pytestqt.qtbot import QtBot

from app.frame.main_window import MainWindow
from app.logs import LogFeed
from app.pages.chat.page import ChatPage
from app.pages.chat.session import ChatSession
from app.shared.run import notification
from app.state import State
from app.theme import Theme
from core.inference.generation.reply import Statistics
from tests.app.find import find

WAIT = 120_000


@pytest.mark.slow
def test_from_a_folder_to_an_answer(
    qtbot: QtBot, theme: Theme, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notification, "show", lambda _title, _text: False)
    window = MainWindow(theme, State(tmp_path / "window.ini"), LogFeed())
    qtbot.addWidget(window, before_close_func=lambda window: window.leave_now())
    with qtbot.waitSignal(window.stack.complete, timeout=WAIT):
        window.show()
    window.activateWindow()
    qtbot.waitActive(window)
    context = window.context
    assert context is not None

    window.open_words(str(tiny_model))
    qtbot.waitUntil(lambda: context.draft.model is not None, timeout=WAIT)
    small = dataclasses.replace(context.draft.choices.recipe, iters=4, samples=4, seqlen=64)
    context.draft.choose(recipe=small, device="cpu")
    assert context.draft.problem() == ""
    assert window.isActiveWindow(), "something else showed itself as a window of its own"

    with qtbot.waitSignal(context.runs.ended, timeout=WAIT) as ended:
        qtbot.keyClick(window, Qt.Key.Key_Return, Qt.KeyboardModifier.ControlModifier)
    assert ended.args is not None
    assert ended.args[0].state == "done"
    window.go("run")
    verdict = find(window, QLabel, "verdict_figures")
    assert verdict.text().startswith("Perplexity ")

    qtbot.keyClick(window, Qt.Key.Key_Return, Qt.KeyboardModifier.ControlModifier)
    chat = window.stack.page("chat")
    assert isinstance(chat, ChatPage)
    qtbot.waitUntil(chat.isVisible, timeout=WAIT)
    session = find(chat, ChatSession)
    with qtbot.waitSignal(session.answered, timeout=WAIT) as answered:
        chat.send("Hello")
    assert answered.args is not None
    assert isinstance(answered.args[0], Statistics)
    assert answered.args[0].tokens > 0
