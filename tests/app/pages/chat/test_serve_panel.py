"""The local server: off by default, token shown once, requests counted."""

from __future__ import annotations

import pytest
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QAbstractButton, QCheckBox, QLineEdit, QProgressBar, QSpinBox, QWidget
from pytestqt.qtbot import QtBot

from app.pages.chat.serve_panel import PORT, ServePanel
from app.pages.chat.session import ChatSession
from app.shared.context import Context
from core.errors import BadInput
from core.events import Listening, Log, Progress
from core.inference.machine import Device, Machine
from core.service.messages import ServeModel
from tests.app.find import find
from tests.app.pages.chat.parts import label_of, shown
from tests.app.reading_aloud import unnamed, unreachable
from tests.app.recorded_calls import RecordedCall, RecordedCalls
from tests.app.scripted_session import OPENED, ScriptedCalls
from tests.app.surroundings import surroundings_with

UP = Listening("http://127.0.0.1:8765", "bw-secret-token", "tiny-4bit")


@pytest.fixture
def recorded() -> RecordedCalls:
    return RecordedCalls()


@pytest.fixture
def session(surroundings: Context, calls: ScriptedCalls) -> ChatSession:
    made = ChatSession(surroundings.calls)
    made.load("/models/tiny", "auto")
    calls.last.succeed(OPENED)
    return made


@pytest.fixture
def panel(qtbot: QtBot, surroundings: Context, session: ChatSession, recorded: RecordedCalls) -> ServePanel:
    elsewhere = surroundings_with(surroundings, calls=recorded)
    return shown(qtbot, ServePanel(elsewhere, session), 280, 400)


def switch(panel: QWidget) -> QCheckBox:
    return find(panel, QCheckBox, "serve")


def field(panel: QWidget, name: str) -> str:
    found = find(panel, QLineEdit, name)
    return found.text() if found.isVisible() else ""


def turned_on(panel: ServePanel, recorded: RecordedCalls) -> RecordedCall:
    switch(panel).click()
    call = recorded.of(ServeModel)[-1]
    call.on_event(UP)
    return call


def test_it_is_off_until_somebody_turns_it_on(panel: ServePanel, recorded: RecordedCalls) -> None:
    assert (switch(panel).isChecked(), recorded.started) == (False, [])
    assert label_of(panel, "serve_note").startswith("Off. The server is reachable from this machine only")


def test_without_a_model_there_is_nothing_to_serve(qtbot: QtBot, surroundings: Context) -> None:
    alone = ServePanel(surroundings, None)
    qtbot.addWidget(alone)
    assert not switch(alone).isEnabled()


def test_it_serves_the_model_that_is_loaded_where_it_is(panel: ServePanel, recorded: RecordedCalls) -> None:
    switch(panel).click()
    assert recorded.of(ServeModel)[0].request == ServeModel("/models/tiny", port=PORT)


def test_while_it_loads_it_says_so(panel: ServePanel, recorded: RecordedCalls) -> None:
    switch(panel).click()
    call = recorded.of(ServeModel)[0]
    call.on_event(Log("info", "Packing layer 3"))
    call.on_event(Progress(0.5, 1, 2))
    assert label_of(panel, "serve_note") == "Packing layer 3"
    assert find(panel, QProgressBar).isVisible()


def test_it_says_where_it_answers_and_for_what(panel: ServePanel, recorded: RecordedCalls) -> None:
    turned_on(panel, recorded)
    assert field(panel, "serve_url") == "http://127.0.0.1:8765/v1"
    assert label_of(panel, "serve_model") == "Serving tiny-4bit"


def test_the_token_is_shown_once(panel: ServePanel, recorded: RecordedCalls) -> None:
    turned_on(panel, recorded)
    assert field(panel, "serve_token") == "bw-secret-token"
    find(panel, QAbstractButton, "serve_copy_token").click()
    assert QGuiApplication.clipboard().text() == "bw-secret-token"
    assert field(panel, "serve_token") == ""
    assert find(panel, QLineEdit, "serve_token").text() == ""


def test_requests_are_counted(panel: ServePanel, recorded: RecordedCalls) -> None:
    call = turned_on(panel, recorded)
    call.on_event(Log("info", "listening on http://127.0.0.1:8765"))
    assert label_of(panel, "serve_requests") == "No requests yet"
    call.on_event(Log("info", "/v1/chat/completions 200, 12 + 40 tokens, 0.7 s"))
    assert label_of(panel, "serve_requests") == "1 request"


def test_turning_it_off_ends_the_call(panel: ServePanel, recorded: RecordedCalls, said: list[str]) -> None:
    call = turned_on(panel, recorded)
    switch(panel).click()
    assert call.stopped
    assert (panel.serving, said[-1]) == (False, "Server stopped.")


def test_what_a_stopped_one_still_says_is_not_heard(panel: ServePanel, recorded: RecordedCalls) -> None:
    call = turned_on(panel, recorded)
    switch(panel).click()
    call.on_event(UP)
    assert not find(panel, QWidget, "serve_running").isVisible()


def test_a_failure_is_a_sentence_and_the_switch_is_off(panel: ServePanel, recorded: RecordedCalls) -> None:
    switch(panel).click()
    recorded.of(ServeModel)[0].on_failure(BadInput("Port 8765 is taken.", "Choose another."))
    assert label_of(panel, "serve_note") == "Port 8765 is taken. Choose another."
    assert not switch(panel).isChecked()


def test_it_goes_on_when_the_chat_takes_another_model(
    panel: ServePanel, recorded: RecordedCalls, session: ChatSession, calls: ScriptedCalls
) -> None:
    turned_on(panel, recorded)
    session.load("/models/other", "auto")
    calls.last.succeed(OPENED)
    assert label_of(panel, "serve_note") == "Still serving tiny."
    assert panel.serving


def test_it_goes_on_when_the_chat_gives_its_memory_back(
    panel: ServePanel, recorded: RecordedCalls, session: ChatSession
) -> None:
    turned_on(panel, recorded)
    session.close()
    assert switch(panel).isEnabled()
    assert panel.serving


def test_the_port_is_remembered_and_fixed_while_it_is_on(
    panel: ServePanel, recorded: RecordedCalls, surroundings: Context
) -> None:
    port = find(panel, QSpinBox, "serve_port")
    port.setValue(9000)
    assert surroundings.state.value("serve/port", 0) == 9000
    turned_on(panel, recorded)
    assert not port.isEnabled()


def test_too_little_memory_for_a_second_copy_is_said_before(panel: ServePanel, surroundings: Context) -> None:
    small = Device("cpu", "cpu", "Test CPU", 100_000_000, 0)
    surroundings.draft.set_machine(Machine((small,), {}, "cpu"))
    panel._update()
    assert "100 MB is free" in label_of(panel, "serve_note")


def test_the_example_has_the_address_and_no_token(panel: ServePanel, recorded: RecordedCalls) -> None:
    turned_on(panel, recorded)
    find(panel, QAbstractButton, "serve_example").click()
    text = QGuiApplication.clipboard().text()
    assert 'base_url="http://127.0.0.1:8765/v1"' in text
    assert "bw-secret-token" not in text
    compile(text, "example", "exec")


def test_everything_has_a_name_and_can_be_reached(panel: ServePanel, recorded: RecordedCalls) -> None:
    turned_on(panel, recorded)
    assert (unnamed(panel), unreachable(panel)) == ([], [])
