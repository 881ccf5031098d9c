"""The status line: activity, messages and memory."""

from __future__ import annotations

import subprocess
import sys

import pytest
from PySide6.QtWidgets import QLabel, QToolButton
from pytestqt.qtbot import QtBot

from app.frame import status_line
from app.frame.status_line import StatusLine
from tests.app.find import find


@pytest.fixture
def line(qtbot: QtBot) -> StatusLine:
    made = StatusLine()
    qtbot.addWidget(made)
    return made


def shown(line: StatusLine) -> str:
    return find(line, QLabel, "status_text").text()


def test_a_message_replaces_the_activity_for_a_while(
    qtbot: QtBot, line: StatusLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    line._forget.setInterval(1)
    line.set_running("calls", "Searching the Hub")
    line.show_message("Copied")
    assert shown(line) == "Copied"
    qtbot.waitUntil(lambda: shown(line) == "Searching the Hub")


def test_a_run_takes_precedence_over_a_call(line: StatusLine) -> None:
    line.set_running("calls", "Searching the Hub")
    line.set_running("run", "Tuning block 1 of 30")
    assert shown(line) == "Tuning block 1 of 30"
    line.set_running("run", "")
    assert shown(line) == "Searching the Hub"


def test_without_activity_the_text_is_ready(line: StatusLine) -> None:
    line.set_running("run", "")
    assert shown(line) == "Ready"


def test_memory_is_that_of_this_process_and_its_children() -> None:
    before = status_line._used()
    child = subprocess.Popen(
        [sys.executable, "-c", "x = bytearray(60_000_000); print(len(x), flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    child.stdout.readline()
    with_child = status_line._used()
    child.communicate(b"\n")
    assert with_child - before > 50_000_000


def test_memory_is_shown_against_that_of_the_machine(line: StatusLine) -> None:
    line.start_measuring()
    text = find(line, QLabel, "status_memory").text()
    assert text.startswith("RAM ")
    assert " of " in text


def test_the_log_button_opens_and_closes(qtbot: QtBot, line: StatusLine) -> None:
    button = find(line, QToolButton, "status_log")
    told: list[bool] = []
    line.log_toggled.connect(told.append)
    button.click()
    line.set_log_shown(False)
    assert told == [True, False]
