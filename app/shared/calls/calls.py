"""Slow operations of the window: each runs in a child process, and its result arrives in the GUI thread.

Keeps the active calls and sessions, and ends them all at exit. `app.shared.calls.thread` waits for a call;
`core.service.calls` implements the calls.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar, overload

from PySide6.QtCore import QCoreApplication, QObject, QTimer, Signal

from app.shared.calls.thread import Call, Listeners
from core.errors import BitwrightError, ChildDied
from core.events import Event
from core.service import messages
from core.service.client import PATIENCE, Service
from core.service.messages import ConvertModel, Request, ServeModel

__all__ = ["Call", "Calls", "Session"]

CLOSE_SECONDS: Final = 2.0
CHAT_PATIENCE: Final = 20.0
"""Seconds for a session's call to stop: killing the child would lose a model that took a minute to load."""
_PATIENCE: Final[dict[type[Request[Any]], float]] = {ConvertModel: 10.0, ServeModel: 6.0}
"""Seconds for calls that clean up: one removes its output, the other ends its connections."""
_WATCH_MS: Final = 1000

R = TypeVar("R")
P = TypeVar("P")
OnError = Callable[[BitwrightError], object]
OnEvent = Callable[[Event], object]


class Calls(QObject):
    """All calls of a window.

    Args:
        command: command line of the child process; the default is the real service.

    Signals:
        unhandled(object): the `BitwrightError` of a call that was started without `on_failure`.
        activity(str): a short description of what runs now; "" if nothing does.
    """

    unhandled = Signal(object)
    activity = Signal(str)

    def __init__(self, parent: QObject | None = None, *, command: Sequence[str] | None = None) -> None:
        super().__init__(parent)
        self._command = command
        self._running: list[Call] = []
        self._sessions: list[Session] = []
        self._burials: list[threading.Thread] = []
        self._said = ""
        self._closed = False

    @property
    def busy(self) -> bool:
        """Return whether a call is active."""
        return bool(self._running)

    def is_on(self, request: type[Request[Any]]) -> bool:
        """Return whether a call with a request of this type is active and was not stopped."""
        return any(isinstance(call.request, request) and not call.stopped for call in self._running)

    @overload
    def start(
        self,
        request: Request[R],
        *,
        on_success: Callable[[R], object],
        on_failure: OnError | None = None,
        on_event: OnEvent | None = None,
    ) -> Call: ...
    @overload
    def start(
        self,
        request: Request[R],
        *,
        prepare: Callable[[R], P],
        on_success: Callable[[P], object],
        on_failure: OnError | None = None,
        on_event: OnEvent | None = None,
    ) -> Call: ...
    def start(
        self,
        request: Request[Any],
        *,
        prepare: Callable[[Any], Any] | None = None,
        on_success: Callable[[Any], object],
        on_failure: OnError | None = None,
        on_event: OnEvent | None = None,
    ) -> Call:
        """Start a call in a child process of its own, which ends with the result. Callbacks run in the GUI thread.

        Args:
            request: one of `core.service.messages`.
            on_success: receives the result.
            on_failure: receives the `BitwrightError`; without it, `unhandled` is emitted.
            on_event: receives the events of the call.
        """
        listeners = self.listeners(on_success, on_failure, on_event, self.over)
        service = Service(patience=_PATIENCE.get(type(request), PATIENCE), command=self._command)
        call = Call(request, service, listeners, keep=False, prepare=prepare)
        self.begin(call)
        return call

    def session(self) -> Session:
        """Return a child process that stays until it is closed. It starts with its first call."""
        session = Session(self, Service(patience=CHAT_PATIENCE, command=self._command))
        self._sessions.append(session)
        if self._closed:
            session.close()
        return session

    def close(self) -> None:
        """End all calls and child processes, killed after two seconds. Nothing can be started afterwards."""
        self._closed = True
        for session in list(self._sessions):
            session.close()
        running = list(self._running)
        for call in running:
            call.stop()
        deadline = time.monotonic() + CLOSE_SECONDS
        for call in running:
            if not call.wait(max(1, int(1000 * (deadline - time.monotonic())))):
                call.kill()
        for call in running:
            call.finish()
        for thread in self._burials:
            thread.join(1.0)

    # --- used by sessions ---

    def listeners(
        self,
        on_success: Callable[[Any], object],
        on_failure: OnError | None,
        on_event: OnEvent | None,
        on_end: Callable[[Call], object],
    ) -> Listeners:
        """Return the callbacks of a call, with the default ones in place of None."""
        return Listeners(on_success, on_failure or self.unhandled.emit, on_event or _ignore, on_end)

    def begin(self, call: Call) -> None:
        """Start a call and keep it as active."""
        if self._closed:
            call.stop()
        self._running.append(call)
        self._emit_activity()
        call.begin()

    def over(self, call: Call) -> None:
        """Remove a call from the active ones."""
        self._running.remove(call)
        self._emit_activity()

    def bury(self, session: Session, service: Service) -> None:
        """Wait in a thread for the end of a killed child: the system may take a while to free its memory."""
        self._sessions.remove(session)
        thread = threading.Thread(target=service.close, name="service-end", daemon=True)
        thread.start()
        self._burials = [*(other for other in self._burials if other.is_alive()), thread]

    def _emit_activity(self) -> None:
        text = _activity(type(self._running[-1].request)) if self._running else ""
        if text != self._said:
            self._said = text
            self.activity.emit(text)


class Session(QObject):
    """A child process that keeps what it has loaded and runs one call after the other. Created by `Calls.session`.

    Signals:
        died(object): the child has ended without `close`, and what it had loaded is lost; a `BitwrightError`. An active
            call has failed before. The next call starts a new child.
    """

    died = Signal(object)

    def __init__(self, calls: Calls, service: Service) -> None:
        super().__init__()
        self._calls = calls
        self._service = service
        self._waiting: deque[Call] = deque()
        self._current: Call | None = None
        self._had_child = False
        self._closed = False
        self._watch = QTimer(self, interval=_WATCH_MS)
        self._watch.timeout.connect(self._look)

    @property
    def alive(self) -> bool:
        """Return whether the child runs."""
        return self._service.alive

    def start(
        self,
        request: Request[R],
        *,
        on_success: Callable[[R], object],
        on_failure: OnError | None = None,
        on_event: OnEvent | None = None,
    ) -> Call:
        """Queue a call in this child, after the active ones; arguments as in `Calls.start`."""
        listeners = self._calls.listeners(on_success, on_failure, on_event, self._ended)
        call = Call(request, self._service, listeners, keep=True)
        if self._closed:
            call.stop()
        self._waiting.append(call)
        self._advance()
        return call

    def close(self) -> None:
        """Kill the child. Returns at once."""
        if self._closed:
            return
        self._closed = True
        self._watch.stop()
        for call in self._waiting:
            call.stop()
        if self._current is not None:
            self._current.kill()
        self._service.kill()
        self._calls.bury(self, self._service)

    def _advance(self) -> None:
        if self._current is None and self._waiting:
            self._watch.stop()
            self._current = self._waiting.popleft()
            self._calls.begin(self._current)

    def _ended(self, call: Call) -> None:
        self._calls.over(call)
        self._current = None
        self._had_child = self._had_child or self.alive or not call.stopped
        if not self._closed:
            self._watch.start()
            self._look()
        self._advance()

    def _look(self) -> None:
        """Detect the end of the child, also while no call is active."""
        if self._had_child and not self.alive:
            self._had_child = False
            self._watch.stop()
            message = "The child process has ended, and its model is no longer loaded."
            self.died.emit(ChildDied(message, "Load the model again."))


def _activity(request: type[Request[Any]]) -> str:
    texts: dict[type[Request[Any]], str] = {
        messages.OpenModel: QCoreApplication.translate("Calls", "Reading the model headers"),
        messages.DownloadModel: QCoreApplication.translate("Calls", "Downloading"),
        messages.MeasureMachine: QCoreApplication.translate("Calls", "Measuring this machine"),
        messages.SearchHub: QCoreApplication.translate("Calls", "Searching the Hub"),
        messages.FetchCard: QCoreApplication.translate("Calls", "Downloading the model card"),
        messages.PreviewText: QCoreApplication.translate("Calls", "Reading the calibration text"),
        messages.ListOutputs: QCoreApplication.translate("Calls", "Listing finished models"),
        messages.MeasureSensitivity: QCoreApplication.translate("Calls", "Measuring the sensitivity"),
        messages.SurveyConversions: QCoreApplication.translate("Calls", "Checking possible conversions"),
        messages.ConvertModel: QCoreApplication.translate("Calls", "Converting"),
        messages.LoadModel: QCoreApplication.translate("Calls", "Loading the model"),
        messages.Say: QCoreApplication.translate("Calls", "Generating"),
        messages.CountTokens: QCoreApplication.translate("Calls", "Counting tokens"),
        messages.MeasurePerplexity: QCoreApplication.translate("Calls", "Measuring the perplexity"),
        messages.MeasureSpeed: QCoreApplication.translate("Calls", "Measuring the speed"),
        messages.ServeModel: QCoreApplication.translate("Calls", "Serving the model"),
    }
    return texts.get(request, request.__name__)


def _ignore(_event: Event) -> None:
    """Ignore the event; the default callback."""
