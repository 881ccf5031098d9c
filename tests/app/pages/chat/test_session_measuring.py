"""Measurements in a chat session: exclusive, and always followed by the ready state."""

from __future__ import annotations

from typing import Any

import pytest

from app.pages.chat.session import ChatSession
from core.errors import BadInput
from core.events import Progress
from core.inference.figures import SpeedReport
from core.inference.generation.settings import Sampling
from core.service.messages import MeasurePerplexity, MeasureSpeed, Request
from tests.app.scripted_session import OPENED, ScriptedCalls


class Heard:
    """What the callables were given."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.errors: list[Any] = []
        self.events: list[Any] = []

    def ask(self, session: ChatSession, request: Request[Any] = MeasureSpeed()) -> bool:  # noqa: B008 - frozen
        return session.measure(
            request, on_success=self.values.append, on_failure=self.errors.append, on_event=self.events.append
        )


@pytest.fixture
def calls() -> ScriptedCalls:
    return ScriptedCalls()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def session(qapp: object, calls: ScriptedCalls) -> ChatSession:
    made = ChatSession(calls)  # type: ignore[arg-type]
    made.load("/models/tiny", "auto")
    calls.last.succeed(OPENED)
    return made


def test_a_measurement_is_a_state_of_its_own(session: ChatSession, calls: ScriptedCalls, heard: Heard) -> None:
    assert heard.ask(session)
    assert (session.state, calls.last.request) == ("measuring", MeasureSpeed())
    calls.last.event(Progress(0.5, 1, 2))
    calls.last.succeed(SpeedReport())
    assert (session.state, heard.values, len(heard.events)) == ("ready", [SpeedReport()], 1)


def test_without_a_model_nothing_is_measured(qapp: object, calls: ScriptedCalls, heard: Heard) -> None:
    assert not heard.ask(ChatSession(calls))  # type: ignore[arg-type]


def test_no_question_is_asked_meanwhile(session: ChatSession, calls: ScriptedCalls, heard: Heard) -> None:
    heard.ask(session)
    session.generate([{"role": "user", "content": "hi"}], Sampling())
    assert isinstance(calls.last.request, MeasureSpeed)


def test_a_measurement_that_fails_is_told_to_its_asker(
    session: ChatSession, calls: ScriptedCalls, heard: Heard
) -> None:
    failures: list[Any] = []
    session.failed.connect(lambda error, _loading: failures.append(error))
    heard.ask(session)
    calls.last.fail(BadInput("It is too short.", "Take more."))
    assert (session.state, len(heard.errors), failures) == ("ready", 1, [])


def test_stop_ends_it_at_once_and_its_answer_is_not_heard(
    session: ChatSession, calls: ScriptedCalls, heard: Heard
) -> None:
    heard.ask(session)
    session.stop()
    assert (session.state, calls.last.stopped) == ("ready", True)
    calls.last.succeed(SpeedReport())
    assert heard.values == []


def test_a_late_answer_is_not_taken_for_that_of_the_next_one(
    session: ChatSession, calls: ScriptedCalls, heard: Heard
) -> None:
    heard.ask(session)
    late = calls.last
    session.stop()
    heard.ask(session, MeasurePerplexity())
    late.succeed(SpeedReport())
    assert (session.state, heard.values) == ("measuring", [])


def test_a_child_that_dies_meanwhile_is_told_as_always(
    session: ChatSession, calls: ScriptedCalls, heard: Heard
) -> None:
    failures: list[Any] = []
    session.failed.connect(lambda error, _loading: failures.append(error))
    heard.ask(session)
    calls.sessions[0].die()
    assert (session.state, len(failures)) == ("idle", 1)
