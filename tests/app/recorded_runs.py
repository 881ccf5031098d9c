"""Records of runs from lists of events."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from app.shared.run.record import Batch, RunRecord
from core.events import Event
from core.spec import JobSpec


def record_of(events: Iterable[Event], spec: JobSpec | None = None, job: Path | None = None) -> RunRecord:
    """Return the record of a list of events."""
    record = RunRecord(spec, job)
    record.apply(batch_of(events))
    return record


def batch_of(events: Iterable[Event]) -> Batch:
    """Return a batch with these events."""
    batch = Batch()
    batch.add(events)
    return batch
