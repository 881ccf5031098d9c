"""What a model can be converted to, and one conversion under way: the calls behind the Convert page.

Knows the service's `conversions` and `convert`, no widget; an answer that was overtaken is not told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from PySide6.QtCore import QObject, Signal

from core.errors import BitwrightError
from core.events import Event
from core.formats.names import FORMATS, folder_name
from core.wording import human

if TYPE_CHECKING:
    from app.shared.calls.calls import Call, Calls

_FOLDERS = frozenset(map(folder_name, FORMATS))
Verdict = Literal["exact", "inexact", "no"]
State = Literal["empty", "looking", "refused", "ready", "converting", "done"]


@dataclass(frozen=True)
class Possible:
    """What would become of the source in one format.

    Attributes:
        format: its name; verdict: `exact`: the same weights, `inexact`: they change, `no`: not possible.
        reason: why not, or what else should be known; "" for nothing.
        size: bytes that would be written; 0 where that is not known.
    """

    format: str
    verdict: Verdict
    reason: str = ""
    size: int = 0


@dataclass(frozen=True)
class Source:
    """The model that is converted.

    Attributes:
        name: what the service is asked for: Hub id, folder or file.
        values: what it said of it.
    """

    name: str
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Short name for people; a run that wrote several formats has a folder for each, which says little."""
        found = self.values.get("label")
        name = found if isinstance(found, str) and found else Path(self.name).name or self.name
        return Path(self.name).parent.name or name if name in _FOLDERS else name

    @property
    def kind(self) -> str:
        """What it is made with: `GPTQ`, `GGUF`, or the number format of its weights; "" where that is not known."""
        found = self.values.get("kind")
        return found if isinstance(found, str) else ""

    @property
    def words(self) -> str:
        """What it is, in a line: `GPTQ, 210 layers W4 g64 sym, 117 MB`; as much of it as is known."""
        layers, size = self.values.get("layers"), self.values.get("bytes")
        parts = [self.kind] if self.kind else []
        if isinstance(layers, Mapping):
            parts += [f"{count:,} layers {label}" for label, count in list(layers.items())[:2]]
            parts += ["and others"] if len(layers) > 2 else []
            parts += [] if layers else ["not quantized"]
        if isinstance(size, int) and size:
            parts.append(human(size))
        return ", ".join(parts)


def possible(rows: Any) -> tuple[Possible, ...]:
    """The rows of a `conversions` call; one that makes no sense is left out."""
    found = []
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, Mapping) and row.get("verdict") in get_args(Verdict) and isinstance(row.get("format"), str):
            size = row.get("bytes")
            reason = row.get("reason")
            found.append(
                Possible(
                    row["format"],
                    row["verdict"],
                    reason if isinstance(reason, str) else "",
                    size if isinstance(size, int) else 0,
                )
            )
    return tuple(found)


class Conversion(QObject):
    """One source at a time, and one conversion of it at a time.

    Signals:
        changed: `state`, and what goes with it, is another one.
        progressed(object): an `Event` of what is under way.
        ended(object): a conversion is done; the values of the call.
        failed(object, bool): a `BitwrightError`, and whether it was a conversion that failed.
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
        self.rows: tuple[Possible, ...] = ()
        self.problem: BitwrightError | None = None
        self.made: Mapping[str, Any] = {}
        self.target = ""

    @property
    def busy(self) -> bool:
        """Whether something is under way."""
        return self._call is not None

    def look(self, name: str) -> None:
        """Ask what the model called `name` can become, in place of what was asked before."""
        self._drop()
        self.source, self.rows, self.problem = Source(name), (), None
        self._start("looking", "conversions", {"model": name}, self._looked)

    def convert(self, format_name: str, output: str, *, inexact: bool) -> None:
        """Write the source to the folder `output` in another format; `inexact` allows the weights to change."""
        if self.source is None or self.busy:
            return
        self.target = format_name
        arguments = {"model": self.source.name, "output": output, "format": format_name, "inexact": inexact}
        self._start("converting", "convert", arguments, self._converted)

    def stop(self) -> None:
        """End what is under way: nothing of it stays."""
        converting = self.state == "converting"
        self._drop()
        if converting:
            self._set("ready")
        elif self.state == "looking":
            self.source = None
            self._set("empty")

    def again(self) -> None:
        """Go back from a result to the table."""
        if self.state == "done":
            self._set("ready")

    def _start(self, state: State, call: str, arguments: dict[str, Any], done: Any) -> None:
        turn = self._turn
        self._call = self._calls.start(
            call,
            arguments,
            on_success=lambda values: done(values) if turn == self._turn else None,
            on_failure=lambda error: self._failed(error) if turn == self._turn else None,
            on_event=lambda event: self._follow(event) if turn == self._turn else None,
        )
        self._set(state)

    def _drop(self) -> None:
        # The number of the turn keeps an answer out that was on its way.
        self._turn += 1
        call, self._call = self._call, None
        if call is not None:
            call.stop()

    def _follow(self, event: Event) -> None:
        self.progressed.emit(event)

    def _looked(self, values: Mapping[str, Any]) -> None:
        self._call = None
        assert self.source is not None
        said = values.get("source")
        self.source = Source(self.source.name, said if isinstance(said, Mapping) else {})
        self.rows = possible(values.get("rows"))
        self._set("ready")

    def _converted(self, values: Mapping[str, Any]) -> None:
        self._call = None
        self.made = values
        self._set("done")
        self.ended.emit(values)

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
