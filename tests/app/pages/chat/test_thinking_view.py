"""The reasoning of a model: collapsed line, expansion, and duration."""

from __future__ import annotations

import pytest
from PySide6.QtWidgets import QTextBrowser, QToolButton
from pytestqt.qtbot import QtBot

from app.pages.chat.conversation_view import ConversationView
from app.pages.chat.message_view import MessageView
from app.pages.chat.page import ChatPage
from app.pages.chat.pictures.library import PictureLibrary
from app.pages.chat.thinking_view import ThinkingView
from app.theme import Theme
from core.events import Token
from core.inference.generation.settings import Sampling
from tests.app.find import find
from tests.app.pages.chat.parts import asked, bubbles, last_bubble
from tests.app.scripted_session import ANSWERED, ScriptedCalls


@pytest.fixture
def view(theme: Theme, qtbot: QtBot) -> ConversationView:
    view = ConversationView(theme, PictureLibrary())
    qtbot.addWidget(view)
    view.resize(600, 400)
    view.show()
    view.ask("why?")
    view.begin_answer(Sampling())
    return view


def line(message: MessageView) -> ThinkingView:
    assert message.thinking is not None
    return message.thinking


def unfold(message: MessageView) -> QTextBrowser:
    button = find(message, QToolButton, "thinking")
    button.click()
    return find(line(message), QTextBrowser)


def test_an_answer_without_thinking_has_no_line(view: ConversationView) -> None:
    view.append_piece("because")
    assert view.messages[-1].thinking is None


def test_thinking_is_told_while_it_goes_on(view: ConversationView) -> None:
    view.append_thought("Let me see. ")
    assert line(view.messages[-1]).words == "Thinking"


def test_thinking_is_no_part_of_the_answer(view: ConversationView) -> None:
    view.append_thought("Let me see.")
    view.append_piece("\n\nBecause.")
    assert view.conversation.last is not None
    assert (view.conversation.last.thinking, view.conversation.last.text) == ("Let me see.", "Because.")


def test_it_is_folded_until_somebody_wants_to_know(view: ConversationView) -> None:
    view.append_thought("Let me see.")
    body = find(line(view.messages[-1]), QTextBrowser)
    assert not body.isVisible()
    assert unfold(view.messages[-1]).isVisible()
    assert body.toPlainText() == "Let me see."


def test_the_bubble_grows_when_it_is_opened(view: ConversationView) -> None:
    view.append_thought("Let me see.\n\n" * 5)
    view.append_piece("Because.")
    before = view.messages[-1].height()
    unfold(view.messages[-1])
    assert view.messages[-1].height() > before


def test_what_comes_while_it_is_open_is_shown(view: ConversationView, qtbot: QtBot) -> None:
    view.append_thought("Let me see. ")
    body = unfold(view.messages[-1])
    view.append_thought("And then?")
    qtbot.waitUntil(lambda: "And then?" in body.toPlainText())


def test_markup_in_it_loads_nothing(view: ConversationView) -> None:
    view.append_thought("![x](file:///etc/passwd) <img src='file:///etc/passwd'>")
    assert "<img" in unfold(view.messages[-1]).toPlainText()


def test_the_page_says_how_long_it_took(page: ChatPage, calls: ScriptedCalls) -> None:
    asked(page, calls)
    calls.last.event(Token("Let me see.", kind="thinking"))
    calls.last.event(Token("Because.", kind="text"))
    calls.last.succeed(ANSWERED, thinking_seconds=12.0)
    assert bubbles(page) == ["hello", "Because."]
    assert line(last_bubble(page)).words == "Thought for 12 s"


def test_an_answer_that_was_stopped_while_thinking_is_kept(page: ChatPage, calls: ScriptedCalls) -> None:
    asked(page, calls)
    calls.last.event(Token("Let me see.", kind="thinking"))
    calls.last.succeed(ANSWERED, ended_by="stopped")
    assert bubbles(page) == ["hello", ""]
    assert line(last_bubble(page)).text == "Let me see."


def test_it_can_be_painted_in_the_dark(view: ConversationView, theme: Theme) -> None:
    view.append_thought("Let me see.")
    unfold(view.messages[-1])
    theme.set_scheme("dark")
    assert not view.grab().isNull()
