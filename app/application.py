"""The application object and the life of the process: first paint, single instance, errors, signals, shutdown.

Modules that are slow to import are imported after the first paint. Does not depend on the pages.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from PySide6.QtCore import QSocketNotifier, QTimer
from PySide6.QtGui import QFont, QIcon
from PySide6.QtWidgets import QApplication

from app.single_instance import SingleInstance
from app.state import State
from app.theme import ICONS, Theme
from core.home import home

if TYPE_CHECKING:
    from app.frame.main_window import MainWindow

CRASH_LOG = "crash.log"


def make_application(arguments: Sequence[str] = ("bitwright",)) -> QApplication:
    """Return the application object, with its names, style and font."""
    application = apply_style(QApplication(list(arguments)))
    application.setApplicationName("bitwright")
    application.setApplicationDisplayName("Bitwright")
    application.setDesktopFileName("bitwright")
    return application


def apply_style(application: QApplication) -> QApplication:
    """Set the application's style and font."""
    application.setStyle("Fusion")
    application.setFont(steady_figures(application.font()))
    return application


def steady_figures(font: QFont) -> QFont:
    """Return `font` with tabular figures: digits of equal width, so that changing numbers do not move text."""
    steady = QFont(font)
    steady.setFeature(QFont.Tag("tnum"), 1)
    return steady


def run(words: str | None = None, *, on_first_paint: Callable[[], object] | None = None) -> int:
    """Open the window, with a model if `words` names one, and run until it is closed; return the exit code."""
    words = _absolute(words or "")
    application = make_application(sys.argv[:1])
    instance = SingleInstance(home())
    first = instance.claim()
    if not first and instance.hand_over(words):
        return 0
    state = State()
    theme = Theme()
    theme.set_scheme(state.scheme)
    from app.frame.main_window import MainWindow
    from app.logs import LogFeed

    window = MainWindow(theme, state, LogFeed())
    instance.asked.connect(window.answer_start)
    if words:
        window.open_words(words)
    life = _Life(application, window, instance, home() / CRASH_LOG, alone=first)
    window.furnished.connect(life.begin)
    window.stack.complete.connect(life.measure)
    if on_first_paint is not None:
        window.painted.connect(on_first_paint)
    window.show()
    code = application.exec()
    life.end()
    return code


class _Life:
    """Everything that starts after the first paint and ends with the window."""

    def __init__(
        self,
        application: QApplication,
        window: MainWindow,
        instance: SingleInstance,
        crash_log: Path,
        *,
        alone: bool,
    ) -> None:
        from app import failures, logs

        self._application, self._window, self._instance = application, window, instance
        self._failures = failures.Failures()
        self._failures.happened.connect(window.show_failure)
        self._failures.install()
        logs.listen(window.feed)
        self._crash_log, self._alone = crash_log, alone
        self._stream: TextIO | None = None
        self._signals: _Signals | None = None

    def begin(self) -> None:
        """Listen for other starts and for signals, and report a crash of the previous session."""
        from app import failures

        self._instance.listen()
        with contextlib.suppress(OSError):  # without a writable home there is no crash log
            self._crash_log.parent.mkdir(parents=True, exist_ok=True)
        crashed = failures.take_crash_log(self._crash_log)
        self._stream = failures.watch_crashes(self._crash_log)
        self._signals = _Signals(self._window)
        self._application.setWindowIcon(QIcon(str(ICONS / "bitwright.svg")))
        self._application.commitDataRequest.connect(lambda _manager: self._window.leave_now())
        if crashed:
            self._window.show_crash(crashed)
        if not self._alone:
            self._window.strip.show_warning(
                self._window.tr("Another Bitwright window is open but does not respond."),
                self._window.tr("You can use this window, but both windows save their settings to the same file."),
            )

    def measure(self) -> None:
        """Measure this machine, once all pages are built."""
        from app.machine_probe import MachineProbe

        if self._window.context is not None:
            MachineProbe(self._window.context, self._window).begin()

    def end(self) -> None:
        """Remove the crash log and the lock after a regular exit."""
        from app import failures

        if self._stream is not None:
            failures.end_watch(self._crash_log, self._stream)
        self._instance.close()
        self._failures.uninstall()


class _Signals:
    """Handlers of the signals of the operating system.

    Ctrl+C in the terminal acts like the window's close button; SIGTERM and SIGHUP close the window without a question.
    Python runs signal handlers only between its own instructions, and Qt's event loop has none: a socket pair wakes it.
    """

    def __init__(self, window: MainWindow) -> None:
        self._window = window
        self._interrupted = False
        if os.name != "posix":
            signal.signal(signal.SIGINT, self._interrupt)
            self._pulse = QTimer(window, interval=500)
            self._pulse.timeout.connect(lambda: None)
            self._pulse.start()
            return
        import socket

        self._here, self._there = socket.socketpair()
        for end in (self._here, self._there):
            end.setblocking(False)
        signal.set_wakeup_fd(self._there.fileno(), warn_on_full_buffer=False)
        self._notifier = QSocketNotifier(self._here.fileno(), QSocketNotifier.Type.Read, window)
        self._notifier.activated.connect(lambda *_: self._here.recv(64))
        signal.signal(signal.SIGINT, self._interrupt)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: QTimer.singleShot(0, window, window.leave_now))

    def _interrupt(self, *_: object) -> None:
        again, self._interrupted = self._interrupted, True
        QTimer.singleShot(0, self._window, self._window.leave_now if again else self._window.close)


def _absolute(words: str) -> str:
    """Return `words` with a path made absolute, for a process with another working directory; keep links."""
    if not words or "://" in words:
        return words
    from core.model_id import absolute

    return absolute(words)
