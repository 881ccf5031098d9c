"""A fake of `Runs` that records requests; the test emits its signals."""

from __future__ import annotations

from PySide6.QtCore import QObject, Signal

from app.shared.run.record import RunRecord
from core.events import Done, Failed
from core.spec import JobSpec


class SteeredRuns(QObject):
    """Replacement of `app.shared.run.runs.Runs` for tests of the frame."""

    changed = Signal()
    started = Signal()
    refused = Signal(object)
    ended = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.record: RunRecord | None = None
        self.active = self.loading = False
        self.goes_on_from_before = False
        self.asked: list[str] = []

    def begin(self, spec: JobSpec | None = None) -> RunRecord:
        """A run is on now."""
        self.record, self.active = RunRecord(spec), True
        self.started.emit()
        self.changed.emit()
        return self.record

    def end(self, last: Done | Failed) -> None:
        """End the run."""
        assert self.record is not None
        self.record.last, self.active = last, False
        self.changed.emit()
        self.ended.emit(None)

    def start(self, spec: JobSpec) -> None:
        self.asked.append(f"start {spec.model}")
        self.begin(spec)

    def adopt(self) -> bool:
        self.asked.append("adopt")
        if self.goes_on_from_before:
            self.begin()
        return self.goes_on_from_before

    def pause(self) -> None:
        self.asked.append("pause")

    def resume(self) -> None:
        self.asked.append("resume")

    def cancel(self) -> None:
        self.asked.append("cancel")

    def detach(self) -> None:
        self.asked.append("detach")

    def close(self, wait: float = 0.0) -> bool:
        self.asked.append("close")
        return True
