"""The view of a conversation: added and removed messages, and incremental display of long ones."""

from __future__ import annotations

import pytest
from PySide6.QtWidgets import QLabel
from pytestqt.qtbot import QtBot

from app.pages.chat import conversation_view
from app.pages.chat.conversation_view import ConversationView
from app.pages.chat.conversations.conversation import Conversation
from app.pages.chat.pictures.library import PictureLibrary
from app.theme import Theme
from core.inference.generation.reply import Statistics
from core.inference.generation.settings import Sampling
from tests.app.find import find


@pytest.fixture
def view(theme: Theme, qtbot: QtBot) -> ConversationView:
    view = ConversationView(theme, PictureLibrary())
    qtbot.addWidget(view)
    view.resize(600, 400)
    return view


def long_conversation(count: int) -> Conversation:
    conversation = Conversation()
    for number in range(count):
        conversation.add("user", f"question {number}")
        conversation.add("assistant", f"answer {number}").figures = Statistics(30, 12, 0.5, 1.6, 10.0, "end")
    return conversation


def texts(view: ConversationView) -> list[str]:
    return [message.text for message in view.messages]


def test_a_long_conversation_is_shown_in_several_rounds(
    view: ConversationView, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation_view, "_BUILD_SECONDS", 0.0001)
    conversation = long_conversation(20)
    with qtbot.waitSignal(view.switched):
        view.show_conversation(conversation)
        assert len(view.messages) < 40
    assert texts(view) == [message.text for message in conversation.path()]


def test_a_question_waits_for_the_bubbles_before_it(view: ConversationView, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation_view, "_BUILD_SECONDS", 0.0001)
    view.show_conversation(long_conversation(20))
    view.ask("and now?")
    assert len(view.messages) == 41
    assert texts(view)[-1] == "and now?"


def test_another_conversation_replaces_one_that_is_still_being_shown(
    view: ConversationView, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation_view, "_BUILD_SECONDS", 0.0001)
    view.show_conversation(long_conversation(20))
    with qtbot.waitSignal(view.switched):
        view.show_conversation(long_conversation(1))
    assert texts(view) == ["question 0", "answer 0"]


def test_the_figures_stand_under_an_answer(view: ConversationView) -> None:
    view.show_conversation(long_conversation(1))
    view.update_footers(quiet=True)
    captions = [find(message.footer, QLabel, "caption").text() for message in view.messages]
    assert captions == ["", "12 tokens, 10 tokens/s"]


@pytest.mark.parametrize(
    ("ended_by", "words"), [("length", "max tokens"), ("context", "context is full"), ("failed", "interrupted")]
)
def test_an_answer_says_why_it_ended(view: ConversationView, ended_by: str, words: str) -> None:
    view.ask("question")
    view.begin_answer(Sampling())
    view.append_piece("answer")
    view.end_answer(Statistics(30, 12, 0.5, 1.6, 10.0, ended_by))
    view.update_footers(quiet=True)
    assert words in find(view.messages[-1].footer, QLabel, "caption").text()


def test_an_answer_of_nothing_says_so(view: ConversationView) -> None:
    view.ask("question")
    view.begin_answer(Sampling())
    view.end_answer(Statistics(30, 0, ended_by="end"))
    view.update_footers(quiet=True)
    assert "Empty answer" in find(view.messages[-1].footer, QLabel, "caption").text()


def test_the_settings_of_an_answer_are_kept_with_it(view: ConversationView) -> None:
    view.ask("question")
    view.begin_answer(Sampling(seed=7))
    assert view.conversation.last is not None
    assert view.conversation.last.sampling["seed"] == 7
