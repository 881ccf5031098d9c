"""Calls of the window: results, threads, rate of events, and clean-up."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import psutil
import pytest
from PySide6.QtCore import QThread
from pytestqt.qtbot import QtBot

from app.shared.calls import thread as call_thread
from app.shared.calls.calls import Call, Calls, Session
from app.shared.calls.thread import merged
from app.shared.models.opened import OpenedModel
from core.errors import BadInput, BitwrightError, ChildDied
from core.events import Event, Log, Memory, Progress, Token
from core.inference.generation.reply import ChatAnswer, Statistics
from core.inference.generation.settings import Sampling
from core.service.messages import OpenModel, Request, Say
from tests.core.service.fake_service import Deaf, Echo, Leave, Stream, Wait, Wrong

FAKE = Path(__file__).parents[3] / "core" / "service" / "fake_service.py"
SAY = Say((), Sampling(1_000_000))
COMMAND = [sys.executable, str(FAKE), "served"]


@pytest.fixture
def calls(qtbot: QtBot) -> Iterator[Calls]:
    """Calls of a child that is quick; at the end every child is gone."""
    before = children()
    made = Calls(command=COMMAND)
    yield made
    made.close()
    assert children() <= before


def children() -> set[psutil.Process]:
    """The child processes of this one; other tests may have left one that all share, such as that of chat templates."""
    return set(psutil.Process().children(recursive=True))


class Heard:
    """Notes what a call tells, and in which thread."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.errors: list[BitwrightError] = []
        self.events: list[Event] = []
        self.threads: set[QThread] = set()

    def success(self, values: Any) -> None:
        self.values.append(values)
        self.threads.add(QThread.currentThread())

    def failure(self, error: BitwrightError) -> None:
        self.errors.append(error)
        self.threads.add(QThread.currentThread())

    def event(self, event: Event) -> None:
        self.events.append(event)
        self.threads.add(QThread.currentThread())

    @property
    def listeners(self) -> dict[str, Any]:
        return {"on_success": self.success, "on_failure": self.failure, "on_event": self.event}


@pytest.fixture
def heard() -> Heard:
    return Heard()


def begin(calls: Calls | Session, request: Request[Any], heard: Heard) -> Call:
    return calls.start(request, **heard.listeners)


def until_over(qtbot: QtBot, call: Call) -> None:
    with qtbot.waitSignal(call.ended, timeout=30_000):
        pass


def test_a_call_succeeds_in_the_threads_of_its_caller(qtbot: QtBot, calls: Calls, heard: Heard) -> None:
    until_over(qtbot, begin(calls, Echo(text="hello"), heard))
    assert heard.values[0].text == "hello"
    assert heard.threads == {QThread.currentThread()}


def test_a_call_fails_with_its_error(qtbot: QtBot, calls: Calls, heard: Heard) -> None:
    until_over(qtbot, begin(calls, Wrong(), heard))
    assert [type(error) for error in heard.errors] == [BadInput]
    assert heard.values == []


def test_the_signals_of_a_call_come_in_order(qtbot: QtBot, calls: Calls, heard: Heard) -> None:
    call = begin(calls, Echo(), heard)
    order: list[str] = []
    call.reported.connect(lambda _event: order.append("reported"))
    call.succeeded.connect(lambda _values: order.append("succeeded"))
    call.ended.connect(lambda: order.append("ended"))
    until_over(qtbot, call)
    assert [name for name, _ in groupby(order)] == ["reported", "succeeded", "ended"]  # events come in batches


def test_a_failure_without_a_callback_is_emitted_by_calls(qtbot: QtBot, calls: Calls) -> None:
    with qtbot.waitSignal(calls.unhandled, timeout=30_000) as blocker:
        calls.start(Wrong(), on_success=lambda _values: None)
    assert isinstance(blocker.args[0], BadInput)


def test_a_child_that_dies_is_a_failure(qtbot: QtBot, calls: Calls, heard: Heard) -> None:
    until_over(qtbot, begin(calls, Leave(code=3), heard))
    assert [type(error) for error in heard.errors] == [ChildDied]


def test_a_bug_in_the_thread_is_reported_and_logged(
    qtbot: QtBot, calls: Calls, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Call, event: Event) -> None:
        raise KeyError("mine")

    monkeypatch.setattr(Call, "_take", broken)
    until_over(qtbot, begin(calls, Echo(), heard))
    assert [error.code for error in heard.errors] == ["internal"]


def test_open_model_returns_an_opened_model(qtbot: QtBot, tiny_model: Path, heard: Heard, opened: OpenedModel) -> None:
    real = Calls()
    request = OpenModel(str(tiny_model))
    until_over(qtbot, real.start(request, prepare=OpenedModel.from_headers, **heard.listeners))
    real.close()
    assert [(value.name, value.tree) for value in heard.values] == [(opened.name, opened.tree)]


def test_a_stopped_call_only_emits_ended(qtbot: QtBot, calls: Calls, heard: Heard) -> None:
    call = begin(calls, Wait(), heard)
    qtbot.waitUntil(lambda: bool(heard.events), timeout=30_000)
    call.stop()
    until_over(qtbot, call)
    assert (heard.values, heard.errors) == ([], [])


def test_a_result_that_arrives_after_a_stop_is_dropped(qtbot: QtBot, calls: Calls, heard: Heard) -> None:
    call = begin(calls, Echo(), heard)
    call.wait(30_000)
    call.stop()
    until_over(qtbot, call)
    assert (heard.values, heard.events) == ([], [])


def test_a_stopped_answer_still_succeeds(qtbot: QtBot, calls: Calls, heard: Heard) -> None:
    call = begin(calls, SAY, heard)
    qtbot.waitUntil(lambda: bool(heard.events), timeout=30_000)
    call.stop()
    until_over(qtbot, call)
    text = "".join(event.text for event in heard.events if isinstance(event, Token))
    assert [(answer.statistics.ended_by, answer.statistics.tokens) for answer in heard.values] == [
        ("stopped", text.count("word "))
    ]


def test_a_call_that_ignores_its_stop_is_killed(qtbot: QtBot, calls: Calls, heard: Heard) -> None:
    call = begin(calls, Deaf(), heard)
    qtbot.waitUntil(lambda: bool(heard.events), timeout=30_000)
    call.stop()
    until_over(qtbot, call)
    assert isinstance(heard.events[0], Log)
    assert not psutil.pid_exists(int(heard.events[0].message))


def test_a_flood_of_text_comes_in_few_signals(qtbot: QtBot, calls: Calls, heard: Heard) -> None:
    until_over(qtbot, begin(calls, Stream(20_000), heard))
    tokens = [event for event in heard.events if isinstance(event, Token)]
    assert "".join(event.text for event in tokens) == "word " * 20_000
    assert len(tokens) <= 20_000 / 100


def test_events_of_one_kind_are_merged() -> None:
    events: list[Event] = [
        Token("a"), Progress(0.1, 1, 2), Log("info", "x"), Token("b"), Memory(1, 1, 0), Progress(0.2, 1, 2),
        Memory(2, 2, 0), Log("info", "y"),
    ]  # fmt: skip
    kept = merged(events)
    assert [getattr(event, "text", None) for event in kept if isinstance(event, Token)] == ["ab"]
    assert [event.fraction for event in kept if isinstance(event, Progress)] == [0.2]
    assert [event.resident for event in kept if isinstance(event, Memory)] == [2]
    assert [event.message for event in kept if isinstance(event, Log)] == ["x", "y"]


def test_thinking_and_answer_are_not_merged() -> None:
    events: list[Event] = [Token("a", kind="thinking"), Token("b", kind="thinking"), Token("c"), Token("d")]
    assert [(event.text, event.kind) for event in merged(events) if isinstance(event, Token)] == [
        ("ab", "thinking"),
        ("cd", "text"),
    ]


def test_the_activity_of_a_call_is_emitted_as_text(qtbot: QtBot, calls: Calls, heard: Heard) -> None:
    said: list[str] = []
    calls.activity.connect(said.append)
    call = begin(calls, Say((), Sampling(1)), heard)
    assert calls.busy
    until_over(qtbot, call)
    assert (said, calls.busy) == (["Generating", ""], False)


def test_a_call_without_references_runs_to_its_end(qtbot: QtBot, calls: Calls, heard: Heard) -> None:
    begin(calls, Echo(), heard)
    gc.collect()
    qtbot.waitUntil(lambda: bool(heard.values), timeout=30_000)


def test_an_ended_call_is_released(qtbot: QtBot, calls: Calls, heard: Heard) -> None:
    call = begin(calls, Echo(), heard)
    until_over(qtbot, call)
    gone = weakref.ref(call)
    del call

    def collected() -> bool:
        gc.collect()
        return gone() is None

    qtbot.waitUntil(collected, timeout=10_000)
    assert not call_thread._held


def test_a_listener_that_fails_does_not_hide_the_end(qtbot: QtBot, calls: Calls) -> None:
    def fail(_values: Any) -> None:
        raise LookupError("mine")

    with qtbot.captureExceptions() as caught:
        until_over(qtbot, calls.start(Echo(), on_success=fail))
    assert [kind for kind, _, _ in caught] == [LookupError]
    assert not calls.busy


def test_close_ends_everything(qtbot: QtBot, heard: Heard) -> None:
    before = children()
    made = Calls(command=COMMAND)
    running = [begin(made, request, heard) for request in (Wait(), Deaf(), Stream())]
    idle = made.session()
    until_over(qtbot, begin(idle, Echo(), heard))
    qtbot.waitUntil(lambda: len(heard.events) >= 3, timeout=30_000)
    made.close()
    assert all(call.isFinished() for call in running)
    assert not made.busy
    assert children() <= before


def test_after_close_a_call_ends_without_a_child(qtbot: QtBot, heard: Heard) -> None:
    made = Calls(command=COMMAND)
    made.close()
    until_over(qtbot, begin(made, Echo(), heard))
    until_over(qtbot, begin(made.session(), Echo(), heard))
    assert (heard.values, heard.errors) == ([], [])


# --- sessions ---


def test_a_session_answers_in_order_from_one_child(qtbot: QtBot, calls: Calls, heard: Heard) -> None:
    session = calls.session()
    last = [begin(session, Echo(number=number), heard) for number in range(4)][-1]
    until_over(qtbot, last)
    assert [values.number for values in heard.values] == [0, 1, 2, 3]
    assert len({values.pid for values in heard.values}) == 1


def test_two_sessions_have_two_children(qtbot: QtBot, calls: Calls, heard: Heard) -> None:
    for _ in range(2):
        until_over(qtbot, begin(calls.session(), Echo(), heard))
    assert len({values.pid for values in heard.values}) == 2


def test_a_waiting_call_can_be_stopped(qtbot: QtBot, calls: Calls, heard: Heard) -> None:
    session = calls.session()
    first, second = begin(session, Wait(), heard), begin(session, Echo(), heard)
    second.stop()
    first.stop()
    until_over(qtbot, second)
    assert heard.values == []


def test_a_reply_stopped_while_it_waits_is_empty(qtbot: QtBot, calls: Calls, heard: Heard) -> None:
    """Whoever asked would wait for its end for ever."""
    session = calls.session()
    first, second = begin(session, Wait(), heard), begin(session, SAY, heard)
    second.stop()
    first.stop()
    until_over(qtbot, second)
    assert heard.values == [ChatAnswer(statistics=Statistics(ended_by="stopped"))]


def test_the_death_of_a_busy_session_fails_its_call_and_emits_died(qtbot: QtBot, calls: Calls, heard: Heard) -> None:
    session = calls.session()
    with qtbot.waitSignal(session.died, timeout=30_000) as blocker:
        begin(session, Leave(code=3), heard)
    assert [type(error) for error in heard.errors] == [ChildDied]
    assert isinstance(blocker.args[0], ChildDied)


def test_the_death_of_an_idle_session_is_detected(qtbot: QtBot, calls: Calls, heard: Heard) -> None:
    session = calls.session()
    until_over(qtbot, begin(session, Echo(), heard))
    with qtbot.waitSignal(session.died, timeout=30_000):
        psutil.Process(heard.values[0].pid).kill()


def test_after_a_death_the_session_has_a_new_child(qtbot: QtBot, calls: Calls, heard: Heard) -> None:
    session = calls.session()
    with qtbot.waitSignal(session.died, timeout=30_000):
        begin(session, Leave(code=3), heard)
    until_over(qtbot, begin(session, Echo(), heard))
    assert len(heard.values) == 1


def test_closing_a_session_ends_its_call_without_a_result(qtbot: QtBot, calls: Calls, heard: Heard) -> None:
    session = calls.session()
    told: list[object] = []
    session.died.connect(told.append)
    call = begin(session, SAY, heard)
    qtbot.waitUntil(lambda: bool(heard.events), timeout=30_000)
    session.close()
    until_over(qtbot, call)
    assert (heard.values, heard.errors, told) == ([], [], [])
