"""One model in one child process: load it, let it answer, stop it, and say plainly in which of these states it is.

Knows the calls `chat_open`, `chat_say` and `chat_count`, not what the conversation is about or how anything looks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from PySide6.QtCore import QObject, Signal

from app.pages.chat.answer_figures import Figures, Meter, figures_from
from app.pages.chat.backend_rows import rows_from
from core.errors import BitwrightError, ChildDied
from core.events import Event, Log, Progress, Stage, Token

if TYPE_CHECKING:
    from app.shared.calls.calls import Call, Calls, Session
    from core.inference.backends.backend import BackendRow

_log = logging.getLogger(__name__)

State = Literal["idle", "loading", "ready", "answering", "measuring"]


@dataclass(frozen=True)
class Opened:
    """What is known of a loaded model.

    Attributes:
        label: short name; device, device_name: what computes; dtype: number format of the weights in memory.
        schemes: how many layers were stored in each scheme, empty for a model that is not quantized.
        weight_bytes: on disk; context: tokens that it reads at once; template: whether it has a chat format.
        device_note: why it is another device than the one asked for, as one sentence, or "".
        folder: where its files lie; runner: what runs the whole model (`native`, `module`, `llama.cpp`).
        backends: what could compute its layers, and how many layers each does.
        memory_bytes: of weights and cache as they lie in memory.
        perplexity: of the run that made it, in words, or ""; perplexity_value: the number, 0 where nobody measured it.
        thinking: whether its chat format has thinking blocks.
    """

    label: str = ""
    device: str = ""
    device_name: str = ""
    dtype: str = ""
    schemes: dict[str, int] = field(default_factory=dict)
    weight_bytes: int = 0
    context: int = 0
    template: bool = True
    device_note: str = ""
    folder: str = ""
    runner: str = ""
    backends: tuple[BackendRow, ...] = ()
    memory_bytes: int = 0
    perplexity: str = ""
    perplexity_value: float = 0.0
    thinking: bool = False


def opened_from(values: Mapping[str, Any]) -> Opened:
    """What `chat_open` answered; what is missing or of another kind is not known."""
    usual = Opened()
    known: dict[str, Any] = {"backends": rows_from(values.get("backends"))}
    for name in Opened.__dataclass_fields__:
        value, default = values.get(name), getattr(usual, name)
        if name not in known and value is not None and type(value) is type(default):
            known[name] = value
    found = values.get("perplexity")
    if isinstance(found, Mapping):
        known["perplexity"] = str(found.get("text") or "")
        value = found.get("value")
        known["perplexity_value"] = float(value) if isinstance(value, int | float) else 0.0
    return Opened(**known)


class ChatSession(QObject):
    """Loads, asks and stops. Whatever comes from a child that was closed meanwhile is not heard any more.

    Signals:
        changed: the state is another one.
        progressed(str, float): what loading does, and its fraction (below 0: not known).
        piece(str): text of the answer.
        thought(str): text that the model thinks before it answers.
        counted(int): tokens that the messages of the last `count` are.
        answered(object): the answer is complete; its `Figures`.
        failed(object, bool): a `BitwrightError`, and whether it came while loading.
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
        self.opened = Opened()
        self.meter = Meter(0.0)
        self.pieces: tuple[str, ...] = ()
        """Text of each token of the last answer, "" where a character was not complete yet."""

    @property
    def state(self) -> State:
        """`idle` (no model in memory), `loading`, `ready`, `answering`, or `measuring` (see `measure`)."""
        return self._state

    @property
    def progress(self) -> tuple[str, float]:
        """What loading does, and its fraction (below 0: not known)."""
        return self._text, self._fraction

    @property
    def figures(self) -> Figures:
        """Of the answer that is coming, as known by now."""
        return self.meter.figures

    def load(self, model: str, device: str, backend: str = "auto", context: int = 0) -> None:
        """Load a model into a child of its own; the one before is gone at once, with its memory.

        Args:
            model, device: what `chat_open` takes.
            backend: what should compute the layers that it can, or `auto`.
            context: tokens that the cache should hold at most; 0 leaves it to the child.
        """
        self.close()
        self.model, self.device, self.backend = model, device, backend
        arguments: dict[str, Any] = {"model": model, "device": device}
        if backend not in ("", "auto"):
            arguments["backend"] = backend
        if context:
            arguments["context"] = context
        self._text, self._fraction = self.tr("Loading the model"), -1.0
        session = self._session = self._calls.session()
        session.died.connect(lambda error: self._died(session, error))
        self._become("loading")
        self._call = session.start(
            "chat_open",
            arguments,
            on_success=lambda values: self._loaded(session, values),
            on_failure=lambda error: self._failed(session, error),
            on_event=lambda event: self._heard(session, event),
        )

    def generate(
        self, messages: Sequence[Mapping[str, str]], sampling: Mapping[str, Any], *, continue_last: bool = False
    ) -> None:
        """Ask the loaded model for an answer, or for more of the answer that is the last of `messages`."""
        session = self._session
        if session is None or self._state != "ready":
            return
        self.stopping = False
        self.pieces = ()
        self.meter = Meter(time.time(), self.meter.per_token)
        arguments: dict[str, Any] = {"messages": [dict(message) for message in messages], "sampling": dict(sampling)}
        if continue_last:
            arguments["continue_last"] = True
        self._become("answering")
        self._call = session.start(
            "chat_say",
            arguments,
            on_success=lambda values: self._complete(session, values),
            on_failure=lambda error: self._failed(session, error),
            on_event=lambda event: self._heard(session, event),
        )

    def count(self, messages: Sequence[Mapping[str, str]]) -> None:
        """Ask how many tokens `messages` are to the loaded model; nothing comes of it where that cannot be told."""
        session = self._session
        if session is not None and self._state == "ready":
            session.start(
                "chat_count",
                {"messages": [dict(message) for message in messages]},
                on_success=lambda values: self._count(session, values),
                on_failure=lambda error: _log.info("Tokens are not counted: %s", error),
                on_event=lambda _event: None,
            )

    def measure(
        self,
        name: str,
        arguments: Mapping[str, Any],
        *,
        on_success: Callable[[Any], object],
        on_failure: Callable[[BitwrightError], object],
        on_event: Callable[[Event], object],
    ) -> bool:
        """Ask the loaded model's child for something else than an answer: `chat_perplexity` or `chat_bench`.

        Its answer comes to the callables; `changed` tells when the measurement ends, also where it was stopped. Says
        whether it has begun.
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
            name,
            arguments,
            on_success=lambda values: over(on_success, values),
            on_failure=failed,
            on_event=lambda event: on_event(event) if session is self._session else None,
        )
        return True

    def stop(self) -> None:
        """End the answer after the token at hand; asked a second time, end the child, whatever it is doing.

        A measurement is over at once, as nobody waits for the rest of it.
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
        """Let go of the model: the child ends, and its memory is free."""
        session, self._session, self._call = self._session, None, None
        self.stopping = False
        self.opened = Opened()
        if session is not None:
            session.close()
        self._become("idle")

    def _loaded(self, session: Session, values: Mapping[str, Any]) -> None:
        if session is self._session:
            self.opened = opened_from(values)
            self._become("ready")

    def _count(self, session: Session, values: Mapping[str, Any]) -> None:
        tokens = values.get("tokens")
        if session is self._session and isinstance(tokens, int):
            self.counted.emit(tokens)

    def _complete(self, session: Session, values: Mapping[str, Any]) -> None:
        if session is self._session:
            self._call = None
            self.stopping = False
            figures = figures_from(values)
            told = values.get("pieces")
            self.pieces = tuple(map(str, told)) if isinstance(told, Sequence) and not isinstance(told, str) else ()
            if self.meter.letters and figures.tokens > 8:
                self.meter.per_token = self.meter.letters / figures.tokens
            self._become("ready")
            self.answered.emit(figures)

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

    def _heard(self, session: Session, event: Event) -> None:
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
