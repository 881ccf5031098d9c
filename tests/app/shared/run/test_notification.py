"""Desktop notifications: texts, command, and no effect without a desktop."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from pytestqt.qtbot import QtBot

from app.shared.run import notification
from core.events import Done, Failed
from tests.app.recorded_runs import record_of
from tests.app.replayed_runs import recorded


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nowhere")


def only(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}" if name == program else None)


def test_the_icon_exists() -> None:
    assert notification._ICON.is_file()


def test_a_finished_run_tells_its_verdict() -> None:
    title, text = notification.words(record_of(recorded()))
    assert title.endswith(" is ready")
    assert "perplexity" in text


def test_a_failed_run_tells_why() -> None:
    assert notification.words(record_of([Failed("internal", "It broke.", "", "", False)])) == (
        "The run did not finish",
        "It broke.",
    )


def test_a_run_without_a_name_has_a_title() -> None:
    assert notification.words(record_of([Done("/o", 1.0, {})]))[0] == "The model is ready"


@pytest.mark.usefixtures("bus", "qapp")
def test_notify_send_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "notify-send")
    assert notification._command("-title", "text")[-3:] == ["--", "-title", "text"]


@pytest.mark.usefixtures("bus", "qapp")
def test_gdbus_gets_its_strings_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "gdbus")
    command = notification._command("it's", "a\\b\nc")
    assert command[-5:] == ["'it\\'s'", "'a\\\\b\\nc'", "[]", "{}", "-1"]


@pytest.mark.usefixtures("qapp")
def test_without_a_session_there_is_no_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    only(monkeypatch, "notify-send")
    assert notification._command("a", "b") == []


@pytest.mark.usefixtures("bus", "qapp")
def test_no_notification_while_the_window_is_active(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    only(monkeypatch, "notify-send")

    def start(command: list[str]) -> bool:
        started.append(command[0])
        return True

    monkeypatch.setattr(notification, "_start", start)
    monkeypatch.setattr(QGuiApplication, "applicationState", lambda: Qt.ApplicationState.ApplicationActive)
    assert not notification.show("a", "b")
    monkeypatch.setattr(QGuiApplication, "applicationState", lambda: Qt.ApplicationState.ApplicationInactive)
    assert notification.show("a", "b")
    assert started == ["/bin/notify-send"]


@pytest.mark.usefixtures("qapp")
def test_where_there_is_no_desktop_nothing_happens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(QGuiApplication, "applicationState", lambda: Qt.ApplicationState.ApplicationInactive)
    assert not notification.show("a", "b")


@pytest.mark.usefixtures("qapp")
def test_the_program_that_notifies_is_really_run(tmp_path: Path, qtbot: QtBot) -> None:
    assert notification._start([sys.executable, "-c", f"open({str(tmp_path / 'told')!r}, 'w').close(); print('aloud')"])
    qtbot.waitUntil((tmp_path / "told").exists, timeout=30_000)
