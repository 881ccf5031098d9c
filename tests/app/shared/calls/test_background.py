"""Background computations: results, dropped results, and errors."""

from __future__ import annotations

import threading
from functools import partial

import pytest
import shiboken6
from pytestqt.qtbot import QtBot

from app.shared.calls import background as background_module
from app.shared.calls.background import Background
from core.errors import BadInput, BitwrightError


def test_a_result_is_emitted(qtbot: QtBot) -> None:
    background = Background()
    with qtbot.waitSignal(background.done) as signal:
        background.ask(lambda: 6 * 7)
        assert background.busy
    assert signal.args == [42]
    assert not background.busy


def test_only_the_newest_request_has_a_result(qtbot: QtBot) -> None:
    background, gate, answers = Background(), threading.Event(), list[int]()
    background.done.connect(answers.append)
    background.ask(lambda: gate.wait(10) and 1)
    background.ask(lambda: 2)
    background.ask(lambda: 3)
    gate.set()
    qtbot.waitUntil(lambda: not background.busy)
    assert answers == [3]


def test_a_forgotten_request_has_no_result(qtbot: QtBot) -> None:
    background, answers = Background(), list[int]()
    background.done.connect(answers.append)
    background.ask(lambda: 1)
    background.forget()
    qtbot.wait(100)
    assert (answers, background.busy) == ([], False)


def test_patience_delays_until_the_last_request(qtbot: QtBot) -> None:
    background, done = Background(patience=40), list[int]()
    for number in range(5):
        background.ask(partial(done.append, number))
    qtbot.waitUntil(lambda: not background.busy)
    assert done == [4]


def test_a_bitwright_error_is_emitted(qtbot: QtBot) -> None:
    def fail() -> None:
        raise BadInput("Too small.", "Allow more.")

    background = Background()
    with qtbot.waitSignal(background.failed) as signal:
        background.ask(fail)
    error = signal.args[0]
    assert isinstance(error, BadInput)


def test_a_bug_is_told_as_one(qtbot: QtBot, caplog: pytest.LogCaptureFixture) -> None:
    background = Background()
    with qtbot.waitSignal(background.failed) as signal:
        background.ask(lambda: 1 // 0)
    error = signal.args[0]
    assert isinstance(error, BitwrightError)
    assert (error.code, "ZeroDivisionError" in error.message) == ("internal", True)


def test_the_requesting_object_may_be_deleted(qtbot: QtBot) -> None:
    background, gate = Background(), threading.Event()
    background.ask(lambda: gate.wait(10))
    background.deleteLater()
    del background
    qtbot.wait(20)
    gate.set()
    qtbot.wait(50)


def test_a_result_is_dropped_if_the_program_quit_during_the_computation(qtbot: QtBot) -> None:
    background, ended = Background(), threading.Event()
    answer = background._answer

    def work() -> int:
        shiboken6.delete(answer)
        ended.set()
        return 1

    background_module._do(work, 1, answer)
    assert ended.is_set()
