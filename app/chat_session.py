"""One model in one child process: load it, let it answer, stop it, and say plainly in which of these states it is.

Knows the calls `chat_open` and `chat_say`, not what the conversation is about or how anything looks.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from PySide6.QtCore import QObject, Signal

from app.models.conversation import Figures, Meter, figures_from
from core.errors import BitwrightError, ChildDied
from core.events import Event, Log, Progress, Stage, Token

if TYPE_CHECKING:
    from app.calls import Call, Calls, Session

State = Literal["idle", "loading", "ready", "answering"]


@dataclass(frozen=True)
class Opened:
    """What is known of a loaded model.

    Attributes:
        label: short name; device, device_name: what computes; dtype: number format of the weights in memory.
        schemes: how many layers were stored in each scheme, empty for a model that is not quantized.
        weight_bytes: on disk; context: tokens that it reads at once; template: whether it has a chat format.
    """

    label: str = ""
    device: str = ""
    device_name: str = ""
    dtype: str = ""
    schemes: dict[str, int] = field(default_factory=dict)
    weight_bytes: int = 0
    context: int = 0
    template: bool = True


class ChatSession(QObject):
    """Loads, asks and stops. Whatever comes from a child that was closed meanwhile is not heard any more.

    Signals:
        changed: the state is another one.
        progressed(str, float): what loading does, and its fraction (below 0: not known).
        piece(str): text of the answer.
        answered(object): the answer is complete; its `Figures`.
        failed(object, bool): a `BitwrightError`, and whether it came while loading.
    """

    changed = Signal()
    progressed = Signal(str, float)
    piece = Signal(str)
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
        self.model = self.device = ""
        self.opened = Opened()
        self.meter = Meter(0.0)

    @property
    def state(self) -> State:
        """`idle` (no model in memory), `loading`, `ready` or `answering`."""
        return self._state

    @property
    def progress(self) -> tuple[str, float]:
        """What loading does, and its fraction (below 0: not known)."""
        return self._text, self._fraction

    @property
    def figures(self) -> Figures:
        """Of the answer that is coming, as known by now."""
        return self.meter.figures

    def load(self, model: str, device: str) -> None:
        """Load a model into a child of its own; the one before is gone at once, with its memory."""
        self.close()
        self.model, self.device = model, device
        self._text, self._fraction = self.tr("Loading the model"), -1.0
        session = self._session = self._calls.session()
        session.died.connect(lambda error: self._died(session, error))
        self._become("loading")
        self._call = session.start(
            "chat_open",
            {"model": model, "device": device},
            on_success=lambda values: self._loaded(session, values),
            on_failure=lambda error: self._failed(session, error),
            on_event=lambda event: self._heard(session, event),
        )

    def say(self, messages: Sequence[Mapping[str, str]], sampling: Mapping[str, Any]) -> None:
        """Ask the loaded model for an answer."""
        session = self._session
        if session is None or self._state != "ready":
            return
        self.stopping = False
        self.meter = Meter(time.time(), self.meter.per_token)
        self._become("answering")
        self._call = session.start(
            "chat_say",
            {"messages": [dict(message) for message in messages], "sampling": dict(sampling)},
            on_success=lambda values: self._complete(session, values),
            on_failure=lambda error: self._failed(session, error),
            on_event=lambda event: self._heard(session, event),
        )

    def stop(self) -> None:
        """End the answer after the token at hand; asked a second time, end the child, whatever it is doing."""
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
            known = {name: values[name] for name in Opened.__dataclass_fields__ if values.get(name) is not None}
            self.opened = Opened(**known)
            self._become("ready")

    def _complete(self, session: Session, values: Mapping[str, Any]) -> None:
        if session is self._session:
            self._call = None
            self.stopping = False
            figures = figures_from(values)
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
            self.meter.piece(event.text, event.time)
            self.piece.emit(event.text)
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
