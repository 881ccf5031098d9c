"""The chat page with a scripted session: models, devices, errors, and messages to the window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QComboBox,
    QLabel,
    QPlainTextEdit,
    QProgressBar,
    QTextEdit,
)  # fmt: skip
from pytestqt.qtbot import QtBot

from app.pages.chat.page import ChatPage
from app.shared.context import Context
from app.shared.models.opened import OpenedModel
from core.errors import BadInput, ChildDied
from core.inference.machine import Device, Machine
from core.service.messages import CountTokens, ListOutputs, OutputList, OutputModel, TokenCount
from tests.app.find import find
from tests.app.pages.chat.parts import (
    PlayedRuns,
    answered,
    asked,
    bubbles,
    button,
    label_of,
    last_bubble,
    shown_page,
)  # fmt: skip
from tests.app.scripted_session import OPENED, ScriptedCalls

# --- models and devices ---


def test_another_model_ends_the_first_and_keeps_the_conversation(page: ChatPage, calls: ScriptedCalls) -> None:
    asked(page, calls)
    calls.last.say("Half")
    page.single.open_folder("/models/other")
    assert calls.sessions[0].closed
    assert bubbles(page) == ["hello", "Half"]


def test_a_switch_loads_the_other_model_at_once(page: ChatPage, calls: ScriptedCalls) -> None:
    asked(page, calls)
    answered(page, calls)
    page.single.pick("/models/other")
    assert calls.last.request.model == "/models/other"


def test_a_switch_loads_nothing_while_nothing_is_loaded(page: ChatPage, calls: ScriptedCalls) -> None:
    page.single.pick("/models/other")
    assert calls.sessions == []


def test_the_tokens_of_a_conversation_are_counted_for_the_other_model(page: ChatPage, calls: ScriptedCalls) -> None:
    asked(page, calls)
    answered(page, calls)
    page.single.pick("/models/other")
    calls.last.succeed(OPENED)
    assert isinstance(calls.last.request, CountTokens)
    calls.last.succeed(TokenCount(77, 2048))
    assert label_of(page, "figure_context") == "77 of 2,048 tokens"


def test_answers_of_two_models_say_whose_they_are(page: ChatPage, calls: ScriptedCalls) -> None:
    asked(page, calls)
    answered(page, calls)
    page.single.pick("/models/other")
    calls.last.succeed(OPENED)
    page.send("more")
    answered(page, calls)
    assert find(last_bubble(page).footer, QLabel, "caption").text().startswith("other, ")


def test_another_device_is_used_at_once(page: ChatPage, calls: ScriptedCalls, surroundings: Context) -> None:
    cpu = Device("cpu", "cpu", "Test CPU", 0, 0)
    card = Device("cuda:0", "cuda", "Test card", 0, 0)
    surroundings.draft.set_machine(Machine((cpu, card), {"cpu": 1e9}, "cuda:0"))
    box = find(page, QComboBox, "chat_device")
    button(page, "load").click()
    calls.last.succeed(OPENED)
    box.setCurrentIndex(box.findData("cpu"))
    box.activated.emit(box.currentIndex())
    assert calls.sessions[0].closed
    assert calls.last.request.device == "cpu"


def test_a_device_that_cannot_be_used_says_why(page: ChatPage, surroundings: Context) -> None:
    card = Device("cuda", "cuda", "Test card", 0, 0, usable=False, reason="its driver is missing.")
    surroundings.draft.set_machine(Machine((card,), {}, ""))
    assert label_of(page, "chat_why_not") == "Test card cannot be used: its driver is missing."


def test_without_any_model_the_page_leads_to_one(surroundings: Context, qtbot: QtBot) -> None:
    page = shown_page(qtbot, surroundings, model="")
    assert button(page, "get_model").text() == "Select a model"
    assert not button(page, "load").isEnabled()


# --- trouble ---


def test_a_child_that_dies_leaves_the_conversation(page: ChatPage, calls: ScriptedCalls, reports: list[Any]) -> None:
    asked(page, calls)
    calls.last.say("Half an")
    calls.sessions[0].die()
    assert bubbles(page) == ["hello", "Half an"]
    assert len(reports) == 1
    assert isinstance(reports[0][0], ChildDied)
    assert reports[0][1].text == "Load again"


def test_load_again_goes_on_with_the_question(page: ChatPage, calls: ScriptedCalls, reports: list[Any]) -> None:
    asked(page, calls)
    calls.sessions[0].die()
    reports[0][1].act()
    calls.last.succeed(OPENED)
    assert list(calls.last.request.messages) == [{"role": "user", "content": "hello"}]


def test_a_full_context_is_said_in_place(page: ChatPage, calls: ScriptedCalls, reports: list[Any]) -> None:
    asked(page, calls)
    calls.last.fail(BadInput("The conversation has 3000 tokens and the model reads 2048.", "Start a new one."))
    assert "3000 tokens" in label_of(page, "notice")
    assert reports == []
    assert button(page, "notice_button").text() == "New conversation"
    button(page, "notice_button").click()
    assert bubbles(page) == []


def test_an_answer_that_filled_the_context_offers_a_new_conversation(page: ChatPage, calls: ScriptedCalls) -> None:
    asked(page, calls)
    answered(page, calls, ended_by="context")
    assert button(page, "notice_button").text() == "New conversation"


def test_a_run_that_is_on_is_mentioned(page: ChatPage, runs: PlayedRuns) -> None:
    assert label_of(page, "slow") == ""
    runs.active = True
    runs.changed.emit()
    assert "slow" in label_of(page, "slow")


def test_an_answer_that_came_unseen_is_marked(page: ChatPage, calls: ScriptedCalls, qtbot: QtBot) -> None:
    asked(page, calls)
    page.hide()
    with qtbot.waitSignal(page.dot_changed):
        answered(page, calls)
    assert page.dot()
    page.show()
    assert not page.dot()


def test_finished_models_are_looked_for_when_the_page_is_shown(page: ChatPage, calls: ScriptedCalls) -> None:
    page.hide()
    calls.asked.clear()
    page.show()
    assert calls.asked == [ListOutputs()]


def test_nothing_is_picked_before_the_finished_models_are_known(
    qtbot: QtBot, surroundings: Context, calls: ScriptedCalls, opened: OpenedModel
) -> None:
    surroundings.draft.choose(model=opened)
    calls.slow = True
    page = shown_page(qtbot, surroundings, model="")
    assert find(page, QComboBox, "chat_model").count() == 0
    made = OutputModel(Path("/models/a"), "", "W4", "x/y", 0.0)
    calls.waiting[-1](OutputList((made,)))
    assert find(page, QComboBox, "chat_model").currentText() == "a"


# --- for everybody ---


def test_everything_that_can_be_used_has_a_name(page: ChatPage, calls: ScriptedCalls) -> None:
    asked(page, calls)
    answered(page, calls, "```python\nx = 1\n```\n[a](https://example.org)")
    kinds = (QAbstractButton, QComboBox, QPlainTextEdit, QTextEdit, QAbstractSpinBox, QProgressBar)
    labels = {label.buddy() for label in page.findChildren(QLabel) if label.buddy() is not None}
    nameless = [
        f"{type(widget).__name__} {widget.objectName()}"
        for kind in kinds
        for widget in page.findChildren(kind)
        if widget.isVisible()
        and not widget.objectName().startswith("qt_")
        and not (widget.accessibleName() or getattr(widget, "text", str)() or widget in labels)
    ]
    assert nameless == []


def test_the_page_fits_the_smallest_window(page: ChatPage) -> None:
    hint = page.minimumSizeHint()
    assert hint.width() <= 880
    assert hint.height() <= 580


def test_the_page_can_be_painted_from_right_to_left(page: ChatPage, calls: ScriptedCalls) -> None:
    asked(page, calls)
    answered(page, calls)
    page.setLayoutDirection(Qt.LayoutDirection.RightToLeft)
    assert not page.grab().isNull()
