"""The calls of the Convert page: the possible conversions of a model, and an active conversion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from PySide6.QtCore import QObject, Signal

from core.conversion.survey import ConversionOption, ConversionSurvey, SourceSummary
from core.errors import BitwrightError
from core.events import Event
from core.formats.names import FORMATS, folder_name
from core.service.messages import ConvertedModel, ConvertModel, Request, SurveyConversions
from core.wording import human

if TYPE_CHECKING:
    from app.shared.calls.calls import Call, Calls

_FOLDERS = frozenset(map(folder_name, FORMATS))
R = TypeVar("R")
State = Literal["empty", "looking", "refused", "ready", "converting", "done"]


@dataclass(frozen=True)
class Source:
    """The model to convert.

    Attributes:
        name: Hub id, folder or file.
        summary: its properties; None until its headers were read.
    """

    name: str
    summary: SourceSummary | None = None

    @property
    def label(self) -> str:
        """Short name for display; the name of the run's folder if the run wrote several formats."""
        name = self.summary.label if self.summary is not None else Path(self.name).name or self.name
        return Path(self.name).parent.name or name if name in _FOLDERS else name

    @property
    def kind(self) -> str:
        """Its format (`GPTQ`, `GGUF`) or the data type of its weights; "" if unknown."""
        return self.summary.kind if self.summary is not None else ""

    @property
    def words(self) -> str:
        """A line such as `GPTQ, 210 layers W4 g64 sym, 117 MB`; "" until its headers were read."""
        if self.summary is None:
            return ""
        layers = self.summary.layers
        parts = [self.summary.kind]
        parts += [f"{count:,} layers {label}" for label, count in list(layers.items())[:2]]
        parts += ["and others"] if len(layers) > 2 else []
        if not layers:
            parts.append("unpacked to 16 bits" if self.summary.unpacked else "not quantized")
        parts += [human(self.summary.nbytes)] if self.summary.nbytes else []
        return ", ".join(filter(None, parts))


class Conversion(QObject):
    """One source at a time, and one conversion of it at a time.

    Signals:
        changed: `state` or its values changed.
        progressed(object): an `Event` of the active call.
        ended(object): a conversion has finished; a `ConvertedModel`.
        failed(object, bool): a `BitwrightError`, and whether a conversion failed.
    """

    changed = Signal()
    progressed = Signal(object)
    ended = Signal(object)
    failed = Signal(object, bool)

    def __init__(self, calls: Calls, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._calls = calls
        self._call: Call | None = None
        self._turn = 0
        self.state: State = "empty"
        self.source: Source | None = None
        self.rows: tuple[ConversionOption, ...] = ()
        self.problem: BitwrightError | None = None
        self.made: ConvertedModel | None = None
        self.target = ""

    @property
    def busy(self) -> bool:
        """Return whether a call is active."""
        return self._call is not None

    def look(self, name: str) -> None:
        """Request the possible conversions of the model `name`; replaces an earlier request."""
        self._drop()
        self.source, self.rows, self.problem = Source(name), (), None
        self._start("looking", SurveyConversions(name), self._looked)

    def convert(self, format_name: str, output: str, *, inexact: bool) -> None:
        """Convert the source to another format in the folder `output`; `inexact` allows changed weights."""
        if self.source is None or self.busy:
            return
        self.target = format_name
        request = ConvertModel(self.source.name, output, format_name, inexact)
        self._start("converting", request, self._converted)

    def stop(self) -> None:
        """Cancel the active call; a conversion removes its files."""
        converting = self.state == "converting"
        self._drop()
        if converting:
            self._set("ready")
        elif self.state == "looking":
            self.source = None
            self._set("empty")

    def again(self) -> None:
        """Return from a result to the table."""
        if self.state == "done":
            self._set("ready")

    def _start(self, state: State, request: Request[R], done: Callable[[R], object]) -> None:
        turn = self._turn
        self._call = self._calls.start(
            request,
            on_success=lambda result: done(result) if turn == self._turn else None,
            on_failure=lambda error: self._failed(error) if turn == self._turn else None,
            on_event=lambda event: self._follow(event) if turn == self._turn else None,
        )
        self._set(state)

    def _drop(self) -> None:
        # The turn number identifies late results of replaced calls, which are dropped.
        self._turn += 1
        call, self._call = self._call, None
        if call is not None:
            call.stop()

    def _follow(self, event: Event) -> None:
        self.progressed.emit(event)

    def _looked(self, survey: ConversionSurvey) -> None:
        self._call = None
        assert self.source is not None
        self.source = Source(self.source.name, survey.source)
        self.rows = survey.options
        self._set("ready")

    def _converted(self, made: ConvertedModel) -> None:
        self._call = None
        self.made = made
        self._set("done")
        self.ended.emit(made)

    def _failed(self, error: BitwrightError) -> None:
        self._call = None
        converting = self.state == "converting"
        if not converting:
            self.problem = error
        self._set("ready" if converting else "refused")
        self.failed.emit(error, converting)

    def _set(self, state: State) -> None:
        self.state = state
        self.changed.emit()
