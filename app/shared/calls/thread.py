"""One slow call: a thread that waits for a child process, and hands on what it says in the GUI thread.

At most 20 times a second, whatever the child does. Knows `core.service.client` and Qt's threads; not what the calls do,
nor who asks.
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
"""Events are handed on in one go this often."""

_AHEAD: Final = 2000
"""Events that may wait for the GUI thread; after that the child has to wait."""
_AT_ONCE: Final = 500
_STOPPED_RESULTS: Final[dict[type[Request[Any]], object]] = {Say: ChatAnswer(statistics=Statistics(ended_by="stopped"))}
"""Requests that have a result after a stop too, and the result of one that had not begun."""

_log = logging.getLogger(__name__)
_held: set[Call] = set()
"""Every call whose thread may be running: a QThread that is collected while it runs ends the whole process."""


@dataclass(frozen=True)
class Listeners:
    """Who hears of a call; all are called in the GUI thread.

    Attributes:
        success: gets the result.
        failure: gets the `BitwrightError`.
        event: gets the events on the way.
        end: gets the call when it is over, in every case and after the others.
    """

    success: Callable[[Any], object]
    failure: Callable[[BitwrightError], object]
    event: Callable[[Event], object]
    end: Callable[[Call], object]


class Call(QThread):
    """One call on its way. Made by `Calls.start` and `Session.start`.

    After `stop` neither `succeeded` nor `failed` comes, except that an answer of a chat succeeds with what it has,
    which is nothing where it had not begun.

    Args:
        request: the request to send.
        service: the child process that answers it.
        keep: leave the child as it is afterwards, instead of ending it.
        prepare: applied to the result in the thread, for what takes too long in the GUI thread.

    Signals:
        reported(object): an `Event` of the call; pieces of text that came together are one `Token`.
        succeeded(object): the result, after `prepare`.
        failed(object): a `BitwrightError`.
        ended(): the last of them, always; the thread is over.
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
        # emitted by the thread itself, and handled in the GUI thread, where this object lives
        self.finished.connect(self.finish, Qt.ConnectionType.QueuedConnection)

    @property
    def stopped(self) -> bool:
        """Whether it was asked to stop."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Ask the child to stop, and have it killed if it does not. Returns at once."""
        self._stop.set()

    def kill(self) -> None:
        """Kill the child now, and say nothing more than that it ended. Returns at once."""
        self._quiet = True
        self._stop.set()
        self._service.kill()

    def begin(self) -> None:
        """Start the thread; a call that was stopped before ends without one."""
        _held.add(self)
        if self.stopped:
            if type(self.request) in _STOPPED_RESULTS:
                self._outcome = ("succeeded", _STOPPED_RESULTS[type(self.request)])
            QTimer.singleShot(0, self.finish)
        else:
            self._timer.start()
            self.start()

    def run(self) -> None:
        """The thread: wait for the child and note what it says."""
        try:
            for event in self._events():
                self._take(event)
            self._outcome = ("succeeded", self._prepare(self._result) if self._prepare else self._result)
        except Cancelled:
            self._outcome = None
        except BitwrightError as error:
            self._outcome = ("failed", error)
        except Exception as error:  # noqa: BLE001 - a thread must not die in silence; this is a bug and is told as one
            _log.exception("call %s", type(self.request).__name__)
            self._outcome = ("failed", _bug(error))
        finally:
            if not self._keep:
                self._service.close()

    def finish(self) -> None:
        """In the GUI thread: wait for the thread's end and tell how it ended; a second time does nothing."""
        listeners, self._listeners = self._listeners, None
        if listeners is None:
            return
        self._timer.stop()
        self.wait()
        try:
            while self._inbox:
                self._hand_on(listeners)
            self._tell(listeners)
        finally:
            listeners.end(self)
            self.ended.emit()
            # later, not here: this may be the last reference, and Qt is still inside this object
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
        """Tell what has come; after a stop only what belongs to an answer."""
        batch: list[Event] = []
        while self._inbox and len(batch) < _AT_ONCE:
            batch.append(self._inbox.popleft())
        if self._quiet or (self.stopped and type(self.request) not in _STOPPED_RESULTS):
            return
        for event in merged(batch):
            listeners.event(event)
            self.reported.emit(event)

    def _tell(self, listeners: Listeners) -> None:
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
    """The same news in fewer events: text in one `Token` for each kind in a row, and of measurements only the last."""
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
    # thinking and answer do not run into each other
    runs = [list(run) for _kind, run in groupby(tokens, key=lambda token: token.kind)]
    text = [replace(run[-1], text="".join(token.text for token in run)) for run in runs]
    return [*rest, *last.values(), *text]


def _bug(error: Exception) -> BitwrightError:
    return BitwrightError(
        f"Something went wrong inside Bitwright: {type(error).__name__}: {error}",
        "This is a bug; the log has more.",
        code="internal",
    )


@atexit.register
def _end_all() -> None:
    """A thread that still runs when Qt goes would take the process with it."""
    for call in list(_held):
        with contextlib.suppress(RuntimeError):  # Qt's half of it is gone already
            call.kill()
            call.wait(3000)
