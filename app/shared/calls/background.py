"""Short computations in a background thread, one at a time; a newer request replaces an older one.

For pure functions of immutable values. Anything that takes longer than seconds belongs in a call
(`app.shared.calls.calls`).
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Any

from PySide6.QtCore import QObject, QTimer, Signal

from core.errors import BitwrightError

_log = logging.getLogger(__name__)

Work = Callable[[], Any]


class _Answer(QObject):
    """The signal of a thread. It has no parent, so that it lives as long as the thread."""

    given = Signal(int, object, object)


class Background(QObject):
    """A background thread for one purpose, such as one curve. The result of a replaced request is dropped.

    Args:
        patience: milliseconds to wait before a request starts, so that a newer one can replace it and the window can be
            painted first: Python's threads share the interpreter with the GUI thread.

    Signals:
        done(object): the value that the function returned.
        failed(object): the `BitwrightError` that it raised.
        busy_changed(bool): `busy` changed.
    """

    done = Signal(object)
    failed = Signal(object)
    busy_changed = Signal(bool)

    def __init__(self, parent: QObject | None = None, *, patience: int = 0) -> None:
        super().__init__(parent)
        self._number = 0
        self._wait = QTimer(self, singleShot=True, interval=patience)
        self._wait.timeout.connect(self._start)
        self._running = False
        self._next: tuple[int, Work] | None = None
        self._wanted = False
        self._answer = _Answer()
        self._answer.given.connect(self._take)

    @property
    def busy(self) -> bool:
        """Return whether a result is pending."""
        return self._wanted

    def ask(self, work: Work) -> None:
        """Run `work` in the thread, in place of an earlier request."""
        self._number += 1
        self._next = (self._number, work)
        self._want(True)
        if self._wait.interval():
            self._wait.start()
        else:
            self._start()

    def forget(self) -> None:
        """Drop the result of the current request."""
        self._number += 1
        self._next = None
        self._want(False)

    def _start(self) -> None:
        if self._next is None or self._running:
            return
        (number, work), self._next = self._next, None
        self._running = True
        answer = self._answer
        threading.Thread(target=lambda: _do(work, number, answer), name="background", daemon=True).start()

    def _take(self, number: int, value: Any, error: BitwrightError | None) -> None:
        self._running = False
        if number == self._number:
            self._want(False)
            if error is not None:
                self.failed.emit(error)
            else:
                self.done.emit(value)
        if not self._wait.isActive():
            self._start()

    def _want(self, wanted: bool) -> None:
        if wanted != self._wanted:
            self._wanted = wanted
            self.busy_changed.emit(wanted)


def _do(work: Work, number: int, answer: _Answer) -> None:
    value, error = None, None
    try:
        value = work()
    except BitwrightError as problem:
        error = problem
    except Exception as problem:  # noqa: BLE001 - a bug, which must not go unnoticed
        _log.exception("Background computation failed")
        words = f"Something went wrong inside Bitwright: {type(problem).__name__}: {problem}"
        error = BitwrightError(words, "This is a bug. See the log for details.", code="internal")
    with contextlib.suppress(RuntimeError):  # Qt deletes the signal's object when the program quits meanwhile
        answer.given.emit(number, value, error)
