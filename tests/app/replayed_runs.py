"""A fake of `app.shared.run.runs.Runs` that replays recorded events up to a point."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from PySide6.QtWidgets import QWidget

from app.shared.run.record import Batch, RunRecord
from core.events import Event, from_line
from core.spec import JobSpec
from tests.app.steered_runs import SteeredRuns

DATA = Path(__file__).with_name("data")


@cache
def recorded(name: str = "demo-run") -> tuple[Event, ...]:
    """The events of a real run, from tests/app/data."""
    lines = (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(map(from_line, lines))


def up_to(
    *kinds: type[Event], when: Callable[[Event], bool] = lambda _event: True, name: str = "demo-run"
) -> list[Event]:
    """The recorded events until, and with, the first of one of these kinds for which `when` is true."""
    seen: list[Event] = []
    for event in recorded(name):
        seen.append(event)
        if isinstance(event, kinds) and when(event):
            return seen
    raise AssertionError(f"no {kinds} in {name}")


def window_for(widget: QWidget, width: int, height: int) -> QWidget:
    """A hidden window with a page in it, as a page always is in one; whoever asks keeps the window."""
    window = QWidget()
    window.resize(width, height)
    widget.setParent(window)
    widget.setGeometry(0, 0, width, height)
    return window


class ReplayedRuns(SteeredRuns):
    """A run that is where a test puts it."""

    def __init__(self) -> None:
        super().__init__()
        self.loading = False

    def play(self, events: Iterable[Event], spec: JobSpec | None = None, job: Path | None = None) -> RunRecord:
        """Start another run with these known events."""
        self.record = RunRecord(spec, job)
        return self.more(events)

    def more(self, events: Iterable[Event]) -> RunRecord:
        """Add the next events of the same run."""
        assert self.record is not None
        batch = Batch()
        batch.add(events)
        self.record.apply(batch)
        self.active = self.record.active
        self.changed.emit()
        return self.record

    def pause(self) -> None:
        super().pause()
        self._want_pause(True)

    def resume(self) -> None:
        super().resume()
        self._want_pause(False)

    def clear(self) -> None:
        self.asked.append("clear")
        self.record, self.active = None, False
        self.changed.emit()

    def _want_pause(self, wanted: bool) -> None:
        assert self.record is not None
        self.record.wants_pause = wanted
        self.changed.emit()
