"""The chat session: requests to the service, and handling of its results."""

from __future__ import annotations

import pytest
from pytestqt.qtbot import QtBot

from app.pages.chat.session import ChatSession
from core.errors import BitwrightError, OutOfMemory
from core.events import Token
from core.inference.generation.message import Message
from core.inference.generation.reply import ChatAnswer, Statistics
from core.inference.generation.settings import Sampling
from core.service.messages import LoadModel, TokenCount
from tests.app.scripted_session import ANSWERED, OPENED, ScriptedCalls

MESSAGES: list[Message] = [{"role": "user", "content": "hello"}]


@pytest.fixture
def calls() -> ScriptedCalls:
    return ScriptedCalls()


@pytest.fixture
def session(qtbot: QtBot, calls: ScriptedCalls) -> ChatSession:
    made = ChatSession(calls)  # type: ignore[arg-type] # plays `Calls`
    made.load("/models/tiny", "cpu")
    calls.last.succeed(OPENED)
    return made


def test_only_what_is_forced_goes_with_the_load(qtbot: QtBot, calls: ScriptedCalls) -> None:
    session = ChatSession(calls)  # type: ignore[arg-type] # plays `Calls`
    session.load("/models/tiny", "cpu")
    assert calls.last.request == LoadModel("/models/tiny", "cpu")
    session.load("/models/tiny", "cpu", "portable", 512)
    assert calls.last.request == LoadModel("/models/tiny", "cpu", "portable", 512)


def test_thinking_and_answer_come_apart(session: ChatSession, calls: ScriptedCalls) -> None:
    heard: list[tuple[str, str]] = []
    session.thought.connect(lambda text: heard.append(("thought", text)))
    session.piece.connect(lambda text: heard.append(("piece", text)))
    session.generate(MESSAGES, Sampling())
    calls.last.event(Token("Hm.", kind="thinking"))
    calls.last.event(Token("Yes."))
    assert heard == [("thought", "Hm."), ("piece", "Yes.")]


def test_the_pieces_of_an_answer_are_kept(session: ChatSession, calls: ScriptedCalls) -> None:
    session.generate(MESSAGES, Sampling())
    calls.last.succeed(ANSWERED, pieces=["He", "llo", ""])
    assert session.pieces == ("He", "llo", "")


def test_the_pieces_are_those_of_the_last_answer(session: ChatSession, calls: ScriptedCalls) -> None:
    session.generate(MESSAGES, Sampling())
    calls.last.succeed(ANSWERED, pieces=["He"])
    session.generate(MESSAGES, Sampling())
    assert session.pieces == ()


def test_an_answer_can_be_continued(session: ChatSession, calls: ScriptedCalls) -> None:
    session.generate(MESSAGES, Sampling(), continue_last=True)
    assert calls.last.request.continue_last is True


def test_tokens_are_counted(session: ChatSession, calls: ScriptedCalls, qtbot: QtBot) -> None:
    session.count(MESSAGES)
    with qtbot.waitSignal(session.counted) as told:
        calls.last.succeed(TokenCount(31, 2048))
    assert told.args == [31]


def test_a_count_that_fails_is_nobodys_trouble(session: ChatSession, calls: ScriptedCalls) -> None:
    failures: list[BitwrightError] = []
    session.failed.connect(lambda error, _loading: failures.append(error))
    session.count(MESSAGES)
    calls.last.fail(OutOfMemory("full"))
    assert (failures, session.state) == ([], "ready")


def test_an_answer_without_figures_has_none(session: ChatSession, calls: ScriptedCalls, qtbot: QtBot) -> None:
    session.generate(MESSAGES, Sampling())
    with qtbot.waitSignal(session.answered) as told:
        calls.last.succeed(ChatAnswer(statistics=Statistics(ended_by="stopped")))
    assert told.args == [Statistics(ended_by="stopped")]
