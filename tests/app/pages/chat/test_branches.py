"""Continuing answers, editing messages, and switching between branches."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLabel, QPlainTextEdit, QToolButton
from pytestqt.qtbot import QtBot

from app.pages.chat import conversation_view
from app.pages.chat.conversations.conversation import Conversation
from app.pages.chat.conversations.files import ConversationFiles
from app.pages.chat.message_view import MessageView
from app.pages.chat.page import ChatPage
from core.service.messages import LoadModel
from tests.app.find import find
from tests.app.pages.chat.parts import answered, asked, bubbles, button, label_of, last_bubble
from tests.app.scripted_session import ANSWERED, OPENED, ScriptedCalls


def bubble(page: ChatPage, place: int) -> MessageView:
    return page.single.view.messages[place]


def tool(view: MessageView, name: str) -> QToolButton:
    return find(view.footer, QToolButton, name)


def press(view: MessageView, name: str) -> None:
    found = tool(view, name)
    assert not found.isHidden(), name
    found.click()


def composer(page: ChatPage) -> QPlainTextEdit:
    return find(page, QPlainTextEdit, "composer")


def rewritten(page: ChatPage, place: int, text: str, qtbot: QtBot) -> None:
    press(bubble(page, place), "edit")
    composer(page).setPlainText(text)
    qtbot.keyClick(composer(page), Qt.Key.Key_Return)


# --- writing a question anew ---


def test_editing_puts_the_question_into_the_composer(page: ChatPage, calls: ScriptedCalls) -> None:
    asked(page, calls)
    answered(page, calls)
    press(bubble(page, 0), "edit")
    assert composer(page).toPlainText() == "hello"
    assert "branch" in label_of(page, "editing")


def test_the_new_wording_is_asked_in_place_of_the_first(page: ChatPage, calls: ScriptedCalls, qtbot: QtBot) -> None:
    asked(page, calls)
    answered(page, calls)
    page.send("more")
    answered(page, calls)
    rewritten(page, 0, "good day", qtbot)
    assert list(calls.last.request.messages) == [{"role": "user", "content": "good day"}]
    answered(page, calls, "and to you")
    assert bubbles(page) == ["good day", "and to you"]


def test_the_arrows_of_a_question_show_its_branches(page: ChatPage, calls: ScriptedCalls, qtbot: QtBot) -> None:
    asked(page, calls)
    answered(page, calls)
    page.send("more")
    answered(page, calls, "of what?")
    rewritten(page, 0, "good day", qtbot)
    answered(page, calls, "and to you")
    press(bubble(page, 0), "answer_before")
    assert bubbles(page) == ["hello", "hi", "more", "of what?"]
    press(bubble(page, 0), "answer_after")
    assert bubbles(page) == ["good day", "and to you"]


def test_what_was_being_written_comes_back(page: ChatPage, calls: ScriptedCalls, qtbot: QtBot) -> None:
    asked(page, calls)
    answered(page, calls)
    composer(page).setPlainText("a draft")
    rewritten(page, 0, "good day", qtbot)
    assert composer(page).toPlainText() == "a draft"
    assert label_of(page, "editing") == ""


def test_esc_leaves_the_question_as_it_was(page: ChatPage, calls: ScriptedCalls, qtbot: QtBot) -> None:
    asked(page, calls)
    answered(page, calls)
    press(bubble(page, 0), "edit")
    qtbot.keyClick(composer(page), Qt.Key.Key_Escape)
    assert bubbles(page) == ["hello", "hi"]
    assert composer(page).toPlainText() == ""
    page.send("more")
    assert [message["content"] for message in calls.last.request.messages] == ["hello", "hi", "more"]


def test_the_arrow_up_in_the_empty_field_edits_the_last_question(
    page: ChatPage, calls: ScriptedCalls, qtbot: QtBot
) -> None:
    asked(page, calls)
    answered(page, calls)
    page.send("more")
    answered(page, calls)
    qtbot.keyClick(composer(page), Qt.Key.Key_Up)
    assert composer(page).toPlainText() == "more"


def test_the_arrow_up_stays_in_a_text(page: ChatPage, calls: ScriptedCalls, qtbot: QtBot) -> None:
    asked(page, calls)
    answered(page, calls)
    composer(page).setPlainText("a draft")
    qtbot.keyClick(composer(page), Qt.Key.Key_Up)
    assert composer(page).toPlainText() == "a draft"


def test_a_question_cannot_be_edited_while_an_answer_comes(page: ChatPage, calls: ScriptedCalls) -> None:
    asked(page, calls)
    assert tool(bubble(page, 0), "edit").isHidden()


def test_an_answer_has_no_edit(page: ChatPage, calls: ScriptedCalls) -> None:
    asked(page, calls)
    answered(page, calls)
    assert tool(bubble(page, 1), "edit").isHidden()


def test_arrows_of_an_earlier_answer_bring_what_followed_it(page: ChatPage, calls: ScriptedCalls) -> None:
    asked(page, calls)
    answered(page, calls)
    button(page, "regenerate").click()
    answered(page, calls, "good day")
    page.send("more")
    answered(page, calls, "of what?")
    press(bubble(page, 1), "answer_before")
    assert bubbles(page) == ["hello", "hi"]
    press(bubble(page, 1), "answer_after")
    assert bubbles(page) == ["hello", "good day", "more", "of what?"]


def test_choosing_a_branch_is_saved(page: ChatPage, calls: ScriptedCalls, qtbot: QtBot) -> None:
    asked(page, calls)
    answered(page, calls)
    button(page, "regenerate").click()
    answered(page, calls, "good day")
    page.store.wait()
    press(bubble(page, 1), "answer_before")
    page.store.wait()
    saved = ConversationFiles().load(page.single.conversation.id)
    assert [message.text for message in saved.path()] == ["hello", "hi"]


def test_the_branch_of_a_long_conversation_is_shown_bit_by_bit(
    page: ChatPage, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four hundred bubbles take two seconds, in which the window would be dead."""
    monkeypatch.setattr(conversation_view, "_BUILD_SECONDS", 0.0001)
    conversation = Conversation()
    first = conversation.add("user", "hello")
    for number in range(20):
        conversation.add("assistant" if number % 2 == 0 else "user", f"text {number}")
    conversation.branch(first, "good day")
    page.show_conversation(conversation)
    with qtbot.waitSignal(page.single.view.switched):
        press(bubble(page, 0), "answer_before")
        assert len(page.single.view.messages) < 21
    assert bubbles(page) == [message.text for message in conversation.path()]


# --- going on ---


def cut(page: ChatPage, calls: ScriptedCalls, text: str = "One, two") -> None:
    asked(page, calls)
    answered(page, calls, text, ended_by="length")


def test_a_cut_answer_can_go_on(page: ChatPage, calls: ScriptedCalls) -> None:
    cut(page, calls)
    press(last_bubble(page), "continue")
    assert calls.last.request.continue_last is True
    assert calls.last.request.messages[-1] == {"role": "assistant", "content": "One, two"}
    calls.last.say(", three")
    assert bubbles(page) == ["hello", "One, two, three"]


def test_both_parts_are_counted_together(page: ChatPage, calls: ScriptedCalls) -> None:
    cut(page, calls)
    press(last_bubble(page), "continue")
    calls.last.say(", three")
    calls.last.succeed(ANSWERED, prompt_tokens=42, tokens=5)
    caption = find(last_bubble(page).footer, QLabel, "caption")
    assert caption.text().startswith("17 tokens")
    assert label_of(page, "figure_context") == "47 of 2,048 tokens"


def test_an_answer_that_came_to_its_end_does_not_go_on(page: ChatPage, calls: ScriptedCalls) -> None:
    asked(page, calls)
    answered(page, calls)
    found = find(last_bubble(page).footer, QToolButton, "continue")
    assert found.isHidden()


def test_going_on_loads_the_model_first(page: ChatPage, calls: ScriptedCalls) -> None:
    cut(page, calls)
    button(page, "load").click()
    press(last_bubble(page), "continue")
    loading = calls.last
    assert isinstance(loading.request, LoadModel)
    loading.succeed(OPENED)
    assert calls.last.request.continue_last is True


def test_an_answer_that_fails_to_go_on_keeps_its_first_part(page: ChatPage, calls: ScriptedCalls) -> None:
    cut(page, calls)
    press(last_bubble(page), "continue")
    calls.sessions[0].die()
    assert bubbles(page) == ["hello", "One, two"]
