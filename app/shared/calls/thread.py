"""One call: a thread that waits for a child process and passes its events on to the GUI thread.

Events are delivered at most 20 times a second, whatever the child does. Depends on QtCore and `core.service.client`.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Final, Literal

from PySide6.QtCore import Qt, QThread, QTimer, Signal

from core.errors import BitwrightError, Cancelled
from core.events import Event, Memory, Progress, Token
from core.inference.generation.reply import ChatAnswer, Statistics
from core.service.client import Service
from core.service.messages import Request, Say

TICK_MS: Final = 50
"""Interval at which events are delivered."""

_AHEAD: Final = 2000
"""Events that may wait for the GUI thread; beyond that, the child is blocked."""
_AT_ONCE: Final = 500
_STOPPED_RESULTS: Final[dict[type[Request[Any]], object]] = {Say: ChatAnswer(statistics=Statistics(ended_by="stopped"))}
"""Requests that have a result after a stop too, and the result of one that had not begun."""

_log = logging.getLogger(__name__)
_held: set[Call] = set()
"""Every call whose thread may be running: a QThread that is destroyed while it runs aborts the process."""


@dataclass(frozen=True)
class Listeners:
    """The callbacks of a call; all run in the GUI thread.

    Attributes:
        success: receives the result.
        failure: receives the `BitwrightError`.
        event: receives the events of the call.
        end: receives the call when it has ended, in every case and after the others.
    """

    success: Callable[[Any], object]
    failure: Callable[[BitwrightError], object]
    event: Callable[[Event], object]
    end: Callable[[Call], object]


class Call(QThread):
    """A call that was started. Created by `Calls.start` and `Session.start`.

    After `stop` neither `succeeded` nor `failed` is emitted, except that a chat reply succeeds with the text so far,
    which is empty if the call had not begun.

    Args:
        request: one of `core.service.messages`.
        service: the child process.
        keep: keep the child afterwards, instead of ending it.

    Signals:
        reported(object): an `Event` of the call; adjacent pieces of text are joined to one `Token`.
        succeeded(object): the result.
        failed(object): a `BitwrightError`.
        ended(): the thread has ended. Always emitted, as the last signal.
    """

    reported = Signal(object)
    succeeded = Signal(object)
    failed = Signal(object)
    ended = Signal()

    def __init__(
        self,
        request: Request[Any],
        service: Service,
        listeners: Listeners,
        *,
        keep: bool,
        prepare: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__()
        self.request = request
        self._prepare = prepare
        self._service = service
        self._keep = keep
        self._listeners: Listeners | None = listeners
        self._stop = threading.Event()
        self._quiet = False
        self._inbox: deque[Event] = deque()
        self._result: Any = None
        self._outcome: tuple[Literal["succeeded", "failed"], Any] | None = None
        self._timer = QTimer(self, interval=TICK_MS)
        self._timer.timeout.connect(self._deliver)
        # emitted by the thread and handled in the GUI thread, where this object lives
        self.finished.connect(self.finish, Qt.ConnectionType.QueuedConnection)

    @property
    def stopped(self) -> bool:
        """Return whether `stop` was called."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Ask the child to stop, and kill it if it does not. Returns at once."""
        self._stop.set()

    def kill(self) -> None:
        """Kill the child now; only `ended` is emitted afterwards. Returns at once."""
        self._quiet = True
        self._stop.set()
        self._service.kill()

    def begin(self) -> None:
        """Start the thread. A call that was stopped before ends without one."""
        _held.add(self)
        if self.stopped:
            if type(self.request) in _STOPPED_RESULTS:
                self._outcome = ("succeeded", _STOPPED_RESULTS[type(self.request)])
            QTimer.singleShot(0, self.finish)
        else:
            self._timer.start()
            self.start()

    def run(self) -> None:
        """Wait for the child and keep its events. Runs in the thread."""
        try:
            for event in self._events():
                self._take(event)
            self._outcome = ("succeeded", self._prepare(self._result) if self._prepare else self._result)
        except Cancelled:
            self._outcome = None
        except BitwrightError as error:
            self._outcome = ("failed", error)
        except Exception as error:  # noqa: BLE001 - a bug, which must not go unnoticed
            _log.exception("call %s", type(self.request).__name__)
            self._outcome = ("failed", _bug(error))
        finally:
            if not self._keep:
                self._service.close()

    def finish(self) -> None:
        """Wait for the end of the thread and report the outcome, once. Call it in the GUI thread."""
        listeners, self._listeners = self._listeners, None
        if listeners is None:
            return
        self._timer.stop()
        self.wait()
        try:
            while self._inbox:
                self._hand_on(listeners)
            self._notify(listeners)
        finally:
            listeners.end(self)
            self.ended.emit()
            # later: this may be the last reference, and Qt is still executing a method of this object
            QTimer.singleShot(0, lambda: _held.discard(self))

    def _events(self) -> Generator[Event, None, None]:
        self._result = yield from self._service.call(self.request, self._stop.is_set)

    def _take(self, event: Event) -> None:
        while len(self._inbox) >= _AHEAD and not self._stop.is_set():
            time.sleep(0.02)
        self._inbox.append(event)

    def _deliver(self) -> None:
        if self._listeners is not None:
            self._hand_on(self._listeners)

    def _hand_on(self, listeners: Listeners) -> None:
        """Deliver the waiting events; after a stop only those of a reply."""
        batch: list[Event] = []
        while self._inbox and len(batch) < _AT_ONCE:
            batch.append(self._inbox.popleft())
        if self._quiet or (self.stopped and type(self.request) not in _STOPPED_RESULTS):
            return
        for event in merged(batch):
            listeners.event(event)
            self.reported.emit(event)

    def _notify(self, listeners: Listeners) -> None:
        if self._quiet or self._outcome is None:
            return
        kind, value = self._outcome
        if kind == "succeeded" and (not self.stopped or type(self.request) in _STOPPED_RESULTS):
            listeners.success(value)
            self.succeeded.emit(value)
        elif kind == "failed" and not self.stopped:
            listeners.failure(value)
            self.failed.emit(value)


def merged(events: Iterable[Event]) -> list[Event]:
    """Return the same information in fewer events: adjacent text in one `Token`, only the last of each measurement."""
    tokens: list[Token] = []
    last: dict[type[Event], Event] = {}
    rest: list[Event] = []
    for event in events:
        if isinstance(event, Token):
            tokens.append(event)
        elif isinstance(event, Progress | Memory):
            last[type(event)] = event
        else:
            rest.append(event)
    # reasoning and reply stay apart
    runs = [list(run) for _kind, run in groupby(tokens, key=lambda token: token.kind)]
    text = [replace(run[-1], text="".join(token.text for token in run)) for run in runs]
    return [*rest, *last.values(), *text]


def _bug(error: Exception) -> BitwrightError:
    return BitwrightError(
        f"Something went wrong inside Bitwright: {type(error).__name__}: {error}",
        "This is a bug. See the log for details.",
        code="internal",
    )


@atexit.register
def _end_all() -> None:
    """End all threads before Qt is unloaded, which would abort the process."""
    for call in list(_held):
        with contextlib.suppress(RuntimeError):  # the C++ object is deleted already
            call.kill()
            call.wait(3000)
