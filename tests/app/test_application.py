"""The process: font, start of the window, second start, and clean exit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PySide6.QtGui import QFontMetricsF, QGuiApplication
from pytestqt.qtbot import QtBot

from app import application

STARTED = """
import sys
from pathlib import Path
from PySide6.QtCore import QTimer
from app import application
from app.frame import main_window
from app.frame import page_stack
from tests.app import frame_pages
from tests.app.steered_runs import SteeredRuns
from app.shared.context import Context

class Calls(main_window.QWidget):
    unhandled, activity = main_window.Signal(object), main_window.Signal(str)
    def close(self): pass
    def start(self, *arguments, **callables): pass
    def is_on(self, name): return False

def surroundings(window):
    from app.shared.draft import Draft
    own = window.state, window.theme, window.report, window.show_message, window.go
    return Context(Draft(window), Calls(), SteeredRuns(), *own)

class Window(main_window.MainWindow):
    def __init__(self, theme, state, feed):
        super().__init__(theme, state, feed, pages=frame_pages.PAGES, make_context=surroundings)
        self.stack.complete.connect(lambda: print("complete", flush=True))
    def open_words(self, words):
        super().open_words(words)
        print("open", words, flush=True)
    def show_crash(self, details):
        print("crashed", len(details) > 0, flush=True)

real, main_window.MainWindow = main_window.MainWindow, Window
sys.exit(application.run(sys.argv[1] if len(sys.argv) > 1 else ""))
"""
POSIX = pytest.mark.skipif(os.name != "posix", reason="signals")


def started(*arguments: str) -> subprocess.Popen[str]:
    """A window with small pages in a process of its own, with this test's home."""
    command = [sys.executable, "-c", STARTED, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def lines_until(child: subprocess.Popen[str], last: str) -> list[str]:
    """Return the output up to the line `last`."""
    assert child.stdout is not None
    lines = []
    for line in child.stdout:
        lines.append(line.strip())
        if lines[-1] == last:
            return lines
    raise AssertionError(f"never said {last!r}: {lines}\n{child.stderr.read() if child.stderr else ''}")


def home() -> Path:
    return Path(os.environ["BITWRIGHT_HOME"])


def test_figures_have_equal_widths(qtbot: QtBot) -> None:
    metrics = QFontMetricsF(application.steady_figures(QGuiApplication.font()))
    assert len({round(metrics.horizontalAdvance(figure), 3) for figure in "0123456789"}) == 1


@POSIX
@pytest.mark.parametrize("order", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_an_order_to_end_is_followed_and_leaves_nothing_behind(order: signal.Signals) -> None:
    child = started()
    lines_until(child, "complete")
    child.send_signal(order)
    _, errors = child.communicate(timeout=30)
    assert (child.returncode, errors) == (0, "")
    assert not (home() / "crash.log").exists()
    assert (home() / "window.ini").exists()


@POSIX
def test_a_second_start_hands_its_model_over() -> None:
    first = started()
    lines_until(first, "complete")
    second = started("demo")
    second.communicate(timeout=30)
    assert lines_until(first, "open demo")[-1] == "open demo"
    assert second.returncode == 0
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=30)


@POSIX
def test_after_a_crash_the_next_start_works_and_tells_of_it() -> None:
    first = started()
    lines_until(first, "complete")
    first.send_signal(signal.SIGABRT)
    first.communicate(timeout=30)
    second = started()
    said = lines_until(second, "complete")
    second.send_signal(signal.SIGTERM)
    second.communicate(timeout=30)
    assert "crashed True" in said


@POSIX
def test_a_folder_is_named_in_full_for_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    found = [application._absolute(words) for words in ("mine", "a/b", "https://huggingface.co/a/b", "demo", "")]
    assert found == [str(tmp_path / "mine"), "a/b", "https://huggingface.co/a/b", "demo", ""]
