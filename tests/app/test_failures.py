"""Uncaught exceptions are shown and end nothing; a crash is reported at the next start."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import QTimer
from pytestqt.qtbot import QtBot

from app.failures import Failures, take_crash_log, watch_crashes
from core.errors import BadInput

pytestmark = pytest.mark.qt_no_exception_capture


@pytest.fixture
def failures(qtbot: QtBot) -> Iterator[Failures]:
    before = sys.excepthook, threading.excepthook, sys.unraisablehook
    made = Failures()
    made.install()
    yield made
    made.uninstall()
    sys.excepthook, threading.excepthook, sys.unraisablehook = before


def raise_it(error: Exception) -> None:
    raise error


def test_an_error_in_a_slot_is_told_and_the_loop_goes_on(qtbot: QtBot, failures: Failures) -> None:
    with qtbot.waitSignal(failures.happened) as told:
        QTimer.singleShot(0, lambda: raise_it(RuntimeError("a slot of ours")))
    error, details = told.args
    assert error.message == "Something went wrong inside Bitwright."
    assert "RuntimeError: a slot of ours" in details


def test_an_error_in_a_thread_is_told(qtbot: QtBot, failures: Failures) -> None:
    with qtbot.waitSignal(failures.happened) as told:
        thread = threading.Thread(target=lambda: raise_it(ValueError("in a thread")))
        thread.start()
        thread.join()
    assert "ValueError: in a thread" in told.args[1]


def test_an_error_made_for_users_keeps_its_own_words(qtbot: QtBot, failures: Failures) -> None:
    with qtbot.waitSignal(failures.happened) as told:
        QTimer.singleShot(0, lambda: raise_it(BadInput("There is no such thing.", "Take another.")))
    assert (told.args[0].message, told.args[0].hint) == ("There is no such thing.", "Take another.")


def test_a_crash_is_known_at_the_next_start_and_only_then(tmp_path: Path) -> None:
    log = tmp_path / "crash.log"
    code = f"import faulthandler; faulthandler.enable(open({str(log)!r}, 'w')); faulthandler._sigabrt()"
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert "Fatal Python error" in take_crash_log(log)
    assert take_crash_log(log) == ""


def test_a_process_that_ends_well_leaves_no_crash_log(tmp_path: Path) -> None:
    log = tmp_path / "crash.log"
    code = (
        "import sys; from pathlib import Path; from app.failures import end_watch, watch_crashes\n"
        "path = Path(sys.argv[1]); stream = watch_crashes(path); assert path.exists(); end_watch(path, stream)"
    )
    subprocess.run([sys.executable, "-c", code, str(log)], check=True)
    assert not log.exists()


def test_a_home_that_cannot_be_written_to_is_no_obstacle(tmp_path: Path) -> None:
    assert watch_crashes(tmp_path / "no such folder" / "crash.log") is None
