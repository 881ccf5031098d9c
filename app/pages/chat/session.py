"""A model in a child process: loading, generating, stopping, and the current state.

Depends on QtCore only.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from PySide6.QtCore import QObject, Signal

from app.pages.chat.live_statistics import LiveStatistics
from core.errors import BitwrightError, ChildDied
from core.events import Event, Log, Progress, Stage, Token
from core.inference.generation.message import Message
from core.inference.generation.reply import Statistics
from core.inference.generation.settings import Sampling
from core.service.messages import CountTokens, LoadedModel, LoadModel, Request, Say, TokenCount

if TYPE_CHECKING:
    from app.shared.calls.calls import Call, Calls, Session

_log = logging.getLogger(__name__)

R = TypeVar("R")
State = Literal["idle", "loading", "ready", "answering", "measuring"]


class ChatSession(QObject):
    """A session of one model. Events of a session that was closed meanwhile are dropped.

    Signals:
        changed: the state changed.
        progressed(str, float): activity and progress of loading (below 0: unknown).
        piece(str): text of the answer.
        thought(str): text of the reasoning before the answer.
        counted(int): number of tokens of the messages of the last `count`.
        answered(object): the answer is complete; its `Statistics`.
        failed(object, bool): a `BitwrightError`, and whether it occurred while loading.
    """

    changed = Signal()
    progressed = Signal(str, float)
    piece = Signal(str)
    thought = Signal(str)
    counted = Signal(int)
    answered = Signal(object)
    failed = Signal(object, bool)

    def __init__(self, calls: Calls, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._calls = calls
        self._session: Session | None = None
        self._call: Call | None = None
        self._state: State = "idle"
        self._text, self._fraction = "", -1.0
        self.stopping = False
        self._measuring = 0
        self.model = self.device = self.backend = ""
        self.opened = LoadedModel()
        self.meter = LiveStatistics(0.0)
        self.pieces: tuple[str, ...] = ()
        """Text of each token of the last answer, "" for a token that ends within a character."""

    @property
    def state(self) -> State:
        """The state: `idle` (no model loaded), `loading`, `ready`, `answering` or `measuring` (see `measure`)."""
        return self._state

    def blind(self, label: str) -> str:
        """Return why the loaded model, called `label`, does not read pictures; "" if it does, or none is loaded."""
        if self._state in ("idle", "loading") or "pictures" in self.opened.reads:
            return ""
        return self.opened.pictures_note or self.tr("{model} does not read pictures.").format(model=label)

    @property
    def progress(self) -> tuple[str, float]:
        """Activity and progress of loading (below 0: unknown)."""
        return self._text, self._fraction

    @property
    def figures(self) -> Statistics:
        """Statistics of the current answer so far."""
        return self.meter.figures

    def load(self, model: str, device: str, backend: str = "auto", context: int = 0) -> None:
        """Load a model into a child process; the previous one is ended at once.

        Args:
            model, device: as in `LoadModel`.
            backend: preferred backend for the layers that it supports, or `auto`.
            context: maximum number of tokens in the cache; 0 for the model's own limit.
        """
        self.close()
        self.model, self.device, self.backend = model, device, backend
        self._text, self._fraction = self.tr("Loading the model"), -1.0
        session = self._session = self._calls.session()
        session.died.connect(lambda error: self._died(session, error))
        self._become("loading")
        self._call = session.start(
            LoadModel(model, device, backend or "auto", context or None),
            on_success=lambda loaded: self._loaded(session, loaded),
            on_failure=lambda error: self._failed(session, error),
            on_event=lambda event: self._handle_event(session, event),
        )

    def generate(self, messages: Sequence[Message], sampling: Sampling, *, continue_last: bool = False) -> None:
        """Generate an answer, or continue the answer that is the last of `messages`."""
        session = self._session
        if session is None or self._state != "ready":
            return
        self.stopping = False
        self.pieces = ()
        self.meter = LiveStatistics(time.time(), self.meter.per_token)
        self._become("answering")
        self._call = session.start(
            Say(_copied(messages), sampling, continue_last),
            on_success=lambda answer: self._complete(session, answer.statistics),
            on_failure=lambda error: self._failed(session, error),
            on_event=lambda event: self._handle_event(session, event),
        )

    def count(self, messages: Sequence[Message]) -> None:
        """Count the tokens of `messages`; no result if the loaded model cannot count."""
        session = self._session
        if session is not None and self._state == "ready":
            session.start(
                CountTokens(_copied(messages)),
                on_success=lambda count: self._count(session, count),
                on_failure=lambda error: _log.info("Tokens could not be counted: %s", error),
                on_event=lambda _event: None,
            )

    def measure(
        self,
        request: Request[R],
        *,
        on_success: Callable[[R], object],
        on_failure: Callable[[BitwrightError], object],
        on_event: Callable[[Event], object],
    ) -> bool:
        """Start a measurement of the loaded model: `MeasurePerplexity` or `MeasureSpeed`; return whether it has begun.

        `changed` is emitted when the measurement ends, also when it is stopped.
        """
        session = self._session
        if session is None or self._state != "ready":
            return False

        def over(tell: Callable[[Any], object], value: Any) -> None:
            if session is self._session and self._state == "measuring" and self._measuring == number:
                self._call = None
                self._become("ready")
                tell(value)

        def failed(error: BitwrightError) -> None:
            if isinstance(error, ChildDied):
                self._failed(session, error)
            else:
                over(on_failure, error)

        self._measuring += 1
        number = self._measuring
        self._become("measuring")
        self._call = session.start(
            request,
            on_success=lambda result: over(on_success, result),
            on_failure=failed,
            on_event=lambda event: on_event(event) if session is self._session else None,
        )
        return True

    def stop(self) -> None:
        """Stop the answer after the current token; if called again, end the child.

        A measurement ends at once.
        """
        if self._state == "measuring" and self._call is not None:
            self._call.stop()
            self._call = None
            self._become("ready")
        if self._state != "answering":
            return
        if self.stopping:
            self.close()
            return
        self.stopping = True
        if self._call is not None:
            self._call.stop()
        self.changed.emit()

    def close(self) -> None:
        """Unload the model: end the child, which frees its memory."""
        session, self._session, self._call = self._session, None, None
        self.stopping = False
        self.opened = LoadedModel()
        if session is not None:
            session.close()
        self._become("idle")

    def _loaded(self, session: Session, loaded: LoadedModel) -> None:
        if session is self._session:
            self.opened = loaded
            self._become("ready")

    def _count(self, session: Session, count: TokenCount) -> None:
        if session is self._session:
            self.counted.emit(count.tokens)

    def _complete(self, session: Session, statistics: Statistics) -> None:
        if session is self._session:
            self._call = None
            self.stopping = False
            self.pieces = tuple(statistics.pieces)
            if self.meter.letters and statistics.tokens > 8:
                self.meter.per_token = self.meter.letters / statistics.tokens
            self._become("ready")
            self.answered.emit(replace(statistics, pieces=[]))

    def _failed(self, session: Session, error: BitwrightError) -> None:
        if session is not self._session:
            return
        loading = self._state == "loading"
        if loading or isinstance(error, ChildDied):
            self.close()
        else:
            self._call = None
            self.stopping = False
            self._become("ready")
        self.failed.emit(error, loading)

    def _died(self, session: Session, error: BitwrightError) -> None:
        if session is self._session:
            self._failed(session, error)

    def _handle_event(self, session: Session, event: Event) -> None:
        if session is not self._session:
            return
        if isinstance(event, Token):
            thinking = event.kind == "thinking"
            self.meter.piece(event.text, event.time, thinking=thinking)
            (self.thought if thinking else self.piece).emit(event.text)
        elif self._state == "loading" and isinstance(event, Log | Progress | Stage):
            if isinstance(event, Progress):
                self._fraction = event.fraction
            elif isinstance(event, Log):
                self._text = event.message
            self.progressed.emit(self._text, self._fraction)

    def _become(self, state: State) -> None:
        if state != self._state:
            self._state = state
            self.changed.emit()


def _copied(messages: Sequence[Message]) -> tuple[Message, ...]:
    return tuple(message.copy() for message in messages)
