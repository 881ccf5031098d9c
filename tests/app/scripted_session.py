"""A fake of the sessions of `app.shared.calls.calls.Calls`; the test controls loading, answers and crashes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from PySide6.QtCore import QObject, Signal

from core.errors import BitwrightError, ChildDied
from core.events import Event, Token
from core.inference.generation.reply import ChatAnswer, Statistics
from core.service.messages import ListOutputs, LoadedModel, OutputList, OutputModel, Request

OPENED = LoadedModel(
    label="tiny-4bit",
    device="cpu",
    device_name="Test CPU",
    dtype="float32",
    schemes={"W4 g64 sym": 14},
    weight_bytes=116_000_000,
    context=2048,
    folder="/models/tiny-4bit",
)
ANSWERED = ChatAnswer(
    statistics=Statistics(
        prompt_tokens=30,
        tokens=12,
        first_token_seconds=0.5,
        seconds=1.6,
        ended_by="end",
        tokens_per_second=10.0,
    )
)


class ScriptedCall:
    """A call, which emits nothing after its session is closed."""

    def __init__(self, request: Any, listeners: tuple[Callable[[Any], object], ...]) -> None:
        self.request = request
        self._success, self._failure, self._event = listeners
        self.stopped = False

    def stop(self) -> None:
        """Replace `Call.stop`; the test decides on the result."""
        self.stopped = True

    def event(self, event: Event) -> None:
        """The child reports."""
        self._event(event)

    def say(self, *pieces: str) -> None:
        """The child sends pieces of an answer."""
        for piece in pieces:
            self._event(Token(piece))

    def succeed(self, result: Any, **changes: Any) -> None:
        """End the call with a result; `changes` replace its fields, or those of the statistics of an answer."""
        if isinstance(result, ChatAnswer):
            text = changes.pop("text", result.text)
            result = replace(result, text=text, statistics=replace(result.statistics, **changes))
        elif changes:
            result = replace(result, **changes)
        self._success(result)

    def fail(self, error: BitwrightError) -> None:
        """The call ends badly."""
        self._failure(error)


class ScriptedSession(QObject):
    """One child.

    Signals:
        died(object): as `Session.died`.
    """

    died = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[ScriptedCall] = []
        self.closed = False

    def start(
        self,
        request: Request[Any],
        *,
        on_success: Callable[[Any], object],
        on_failure: Callable[[Any], object],
        on_event: Callable[[Any], object],
    ) -> ScriptedCall:
        """Replace `Session.start`."""
        assert not self.closed
        self.calls.append(ScriptedCall(request, (on_success, on_failure, on_event)))
        return self.calls[-1]

    def close(self) -> None:
        """Replace `Session.close`."""
        self.closed = True

    def die(self) -> None:
        """Simulate a killed child: fail the current call, then emit `died`."""
        error = ChildDied("The child process has ended.", "Load the model again.")
        self.calls[-1].fail(error)
        self.died.emit(error)


class ScriptedCalls:
    """Factory of sessions; other calls return their results at once, except `slow` ones."""

    def __init__(self) -> None:
        self.sessions: list[ScriptedSession] = []
        self.outputs: list[OutputModel] = []
        self.asked: list[Request[Any]] = []
        self.slow = False
        self.waiting: list[Callable[[Any], object]] = []

    def start(
        self,
        request: Request[Any],
        *,
        on_success: Callable[[Any], object],
        on_failure: Callable[[Any], object] | None = None,
        on_event: Callable[[Any], object] | None = None,
    ) -> None:
        """Replace `Calls.start` for the list of finished models."""
        assert isinstance(request, ListOutputs)
        self.asked.append(request)
        if self.slow:
            self.waiting.append(on_success)
        else:
            on_success(OutputList(tuple(self.outputs)))

    def session(self) -> ScriptedSession:
        """Replace `Calls.session`."""
        self.sessions.append(ScriptedSession())
        return self.sessions[-1]

    @property
    def last(self) -> ScriptedCall:
        """The call that was started last."""
        return self.sessions[-1].calls[-1]
