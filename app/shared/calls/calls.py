"""Slow questions without a slow window: each is asked of a child process, and answered in the GUI thread.

Knows which calls and sessions are under way, and ends them all; the waiting itself is in `app.shared.calls.thread`,
and what the calls do in `core.service.calls`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from PySide6.QtCore import QCoreApplication, QObject, QTimer, Signal

from app.shared.calls.thread import Call, Listeners, opened
from core.errors import BitwrightError, ChildDied
from core.events import Event
from core.service.client import PATIENCE, Service

__all__ = ["Call", "Calls", "Session", "opened"]

CLOSE_SECONDS: Final = 2.0
CHAT_PATIENCE: Final = 20.0
"""Seconds that a session's call has to stop: killing the child would lose a model that took a minute to load."""
_PATIENCE: Final = {"convert": 10.0, "serve": 6.0}
"""The same of calls that tidy up: one takes away what it wrote, the other lets its callers go."""
_WATCH_MS: Final = 1000

OnValues = Callable[[Any], object]
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

    def is_on(self, name: str) -> bool:
        """Whether a call of this name is under way and was not stopped."""
        return any(call.name == name and not call.stopped for call in self._running)

    def start(
        self,
        name: str,
        arguments: Mapping[str, Any],
        *,
        on_success: OnValues,
        on_failure: OnError | None = None,
        on_event: OnEvent | None = None,
    ) -> Call:
        """Ask a child of its own, which ends with the answer. The callables run in the GUI thread.

        Args:
            name, arguments: see `core.service.calls`.
            on_success: gets the values (for `open_model` an `OpenedModel`).
            on_failure: gets the `BitwrightError`; without it `unhandled` does.
            on_event: gets the events on the way.
        """
        listeners = self.listeners(on_success, on_failure, on_event, self.over)
        service = Service(patience=_PATIENCE.get(name, PATIENCE), command=self._command)
        call = Call(name, arguments, service, listeners, keep=False)
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
        on_success: OnValues,
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
        text = _activity(self._running[-1].name) if self._running else ""
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
        name: str,
        arguments: Mapping[str, Any],
        *,
        on_success: OnValues,
        on_failure: OnError | None = None,
        on_event: OnEvent | None = None,
    ) -> Call:
        """A call in this child, after those that are under way; arguments as in `Calls.start`."""
        listeners = self._calls.listeners(on_success, on_failure, on_event, self._ended)
        call = Call(name, arguments, self._service, listeners, keep=True)
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


def _activity(name: str) -> str:
    texts = {
        "open_model": QCoreApplication.translate("Calls", "Reading the model"),
        "download": QCoreApplication.translate("Calls", "Downloading"),
        "devices": QCoreApplication.translate("Calls", "Measuring this machine"),
        "search": QCoreApplication.translate("Calls", "Searching the Hub"),
        "card": QCoreApplication.translate("Calls", "Fetching the model card"),
        "preview_text": QCoreApplication.translate("Calls", "Reading the calibration text"),
        "outputs": QCoreApplication.translate("Calls", "Looking for finished models"),
        "sensitivity": QCoreApplication.translate("Calls", "Measuring the sensitivity"),
        "conversions": QCoreApplication.translate("Calls", "Looking at what the model can become"),
        "convert": QCoreApplication.translate("Calls", "Converting"),
        "chat_open": QCoreApplication.translate("Calls", "Loading the model"),
        "chat_say": QCoreApplication.translate("Calls", "AnswerControl"),
        "chat_count": QCoreApplication.translate("Calls", "Counting tokens"),
        "chat_perplexity": QCoreApplication.translate("Calls", "Measuring the perplexity"),
        "chat_bench": QCoreApplication.translate("Calls", "Measuring the speed"),
        "serve": QCoreApplication.translate("Calls", "Serving the model to other programs"),
    }
    return texts.get(name, name)


def _ignore(_event: Event) -> None:
    """For callers who do not want to know."""
