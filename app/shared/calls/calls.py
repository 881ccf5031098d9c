"""Slow questions without a slow window: each is asked of a child process, and answered in the GUI thread.

Knows which calls and sessions are under way, and ends them all; the waiting itself is in `app.shared.calls.thread`,
and what the calls do in `core.service.calls`.
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
"""Seconds that a session's call has to stop: killing the child would lose a model that took a minute to load."""
_PATIENCE: Final[dict[type[Request[Any]], float]] = {ConvertModel: 10.0, ServeModel: 6.0}
"""The same of calls that clean up: one removes its output, the other ends its connections."""
_WATCH_MS: Final = 1000

R = TypeVar("R")
P = TypeVar("P")
OnError = Callable[[BitwrightError], object]
OnEvent = Callable[[Event], object]


class Calls(QObject):
    """All slow calls of a window.

    Args:
        command: what to run instead of the real service.

    Signals:
        unhandled(object): the `BitwrightError` of a call that was started without `on_failure`.
        activity(str): what runs, in a few words; "" when nothing does.
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
        """Whether a call is under way."""
        return bool(self._running)

    def is_on(self, request: type[Request[Any]]) -> bool:
        """Return whether a request of this class is under way and was not stopped."""
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
        """Send a request to a child process of its own, which ends with the answer.

        Args:
            request: one of `core.service.messages`.
            prepare: applied to the result in the thread of the call, for what takes too long in the GUI thread.
            on_success: called in the GUI thread, as are the others, with the result.
            on_failure: called with the `BitwrightError`; without it `unhandled` is emitted.
            on_event: called with the events of the call.
        """
        listeners = self.listeners(on_success, on_failure, on_event, self.over)
        service = Service(patience=_PATIENCE.get(type(request), PATIENCE), command=self._command)
        call = Call(request, service, listeners, keep=False, prepare=prepare)
        self.begin(call)
        return call

    def session(self) -> Session:
        """A child that stays until it is closed; it starts with its first call."""
        session = Session(self, Service(patience=CHAT_PATIENCE, command=self._command))
        self._sessions.append(session)
        if self._closed:
            session.close()
        return session

    def close(self) -> None:
        """End all calls and children: asked first, killed after two seconds. Nothing can be started afterwards."""
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

    # --- what sessions need ---

    def listeners(
        self,
        on_success: Callable[[Any], object],
        on_failure: OnError | None,
        on_event: OnEvent | None,
        on_end: Callable[[Call], object],
    ) -> Listeners:
        """Who hears of a call, with the usual listener in place of one that is missing."""
        return Listeners(on_success, on_failure or self.unhandled.emit, on_event or _ignore, on_end)

    def begin(self, call: Call) -> None:
        """Begin a call and note that it is under way."""
        if self._closed:
            call.stop()
        self._running.append(call)
        self._say()
        call.begin()

    def over(self, call: Call) -> None:
        """Note that a call is over."""
        self._running.remove(call)
        self._say()

    def bury(self, session: Session, service: Service) -> None:
        """Wait, elsewhere, for the end of a child that was killed: the system may take a while to free its memory."""
        self._sessions.remove(session)
        thread = threading.Thread(target=service.close, name="service-end", daemon=True)
        thread.start()
        self._burials = [*(other for other in self._burials if other.is_alive()), thread]

    def _say(self) -> None:
        text = _activity(type(self._running[-1].request)) if self._running else ""
        if text != self._said:
            self._said = text
            self.activity.emit(text)


class Session(QObject):
    """A child that stays, with what it has loaded, and answers one call after the other. Made by `Calls.session`.

    Signals:
        died(object): the child is gone, and what it had loaded with it, although nobody closed the session; a
            `BitwrightError` says so. A call that was under way has failed before. The next call starts a new child.
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
        """Whether the child runs."""
        return self._service.alive

    def start(
        self,
        request: Request[R],
        *,
        on_success: Callable[[R], object],
        on_failure: OnError | None = None,
        on_event: OnEvent | None = None,
    ) -> Call:
        """A call in this child, after those that are under way; arguments as in `Calls.start`."""
        listeners = self._calls.listeners(on_success, on_failure, on_event, self._ended)
        call = Call(request, self._service, listeners, keep=True)
        if self._closed:
            call.stop()
        self._waiting.append(call)
        self._advance()
        return call

    def close(self) -> None:
        """Kill the child, whatever it does. Returns at once."""
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
        """Notice that the child is gone, also while nothing was asked of it."""
        if self._had_child and not self.alive:
            self._had_child = False
            self._watch.stop()
            self.died.emit(ChildDied("The helper process has ended, and the model it held is gone.", "Open it again."))


def _activity(request: type[Request[Any]]) -> str:
    texts: dict[type[Request[Any]], str] = {
        messages.OpenModel: QCoreApplication.translate("Calls", "Reading the model"),
        messages.DownloadModel: QCoreApplication.translate("Calls", "Downloading"),
        messages.MeasureMachine: QCoreApplication.translate("Calls", "Measuring this machine"),
        messages.SearchHub: QCoreApplication.translate("Calls", "Searching the Hub"),
        messages.FetchCard: QCoreApplication.translate("Calls", "Fetching the model card"),
        messages.PreviewText: QCoreApplication.translate("Calls", "Reading the calibration text"),
        messages.ListOutputs: QCoreApplication.translate("Calls", "Looking for finished models"),
        messages.MeasureSensitivity: QCoreApplication.translate("Calls", "Measuring the sensitivity"),
        messages.SurveyConversions: QCoreApplication.translate("Calls", "Looking at what the model can become"),
        messages.ConvertModel: QCoreApplication.translate("Calls", "Converting"),
        messages.LoadModel: QCoreApplication.translate("Calls", "Loading the model"),
        messages.Say: QCoreApplication.translate("Calls", "Answering"),
        messages.CountTokens: QCoreApplication.translate("Calls", "Counting tokens"),
        messages.MeasurePerplexity: QCoreApplication.translate("Calls", "Measuring the perplexity"),
        messages.MeasureSpeed: QCoreApplication.translate("Calls", "Measuring the speed"),
        messages.ServeModel: QCoreApplication.translate("Calls", "Serving the model to other programs"),
    }
    return texts.get(request, request.__name__)


def _ignore(_event: Event) -> None:
    """For callers who do not want to know."""
