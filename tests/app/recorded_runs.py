"""Records of runs from lists of events."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from app.shared.run.record import Batch, RunRecord
from core.events import Event
from core.spec import JobSpec


def record_of(events: Iterable[Event], spec: JobSpec | None = None, job: Path | None = None) -> RunRecord:
    """Return the record of a list of events."""
    record, batch = RunRecord(spec, job), Batch()
    batch.add(events)
    record.apply(batch)
    return record
