"""The disk space needed to start a run again that ended without a result."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from app.shared.resource_needs import disk_problem
from core.errors import BitwrightError
from core.estimation import costs
from core.formats.grids import plan_layers

if TYPE_CHECKING:
    from app.shared.models.opened import OpenedModel
    from app.shared.run.record import RunRecord
    from core.spec import JobSpec


def obstacle(spec: JobSpec, needed: float) -> str:
    """Return the reason why a run that needs so many bytes of disk space cannot be started now; "" if it can."""
    return disk_problem(needed, Path(spec.output))


def needed_bytes(record: RunRecord, spec: JobSpec, model: OpenedModel | None) -> float:
    """Return the bytes of disk space that a run of `spec` needs; 0 if unknown.

    Computed from the shapes of `model`, if the run is of that model; otherwise as reported by the run.
    """
    if model is None or model.name != spec.model or model.tree.refusal:
        return sum(record.planned.values())
    try:
        plans = plan_layers(model.tree, spec.bits_map, spec.formats, like=spec.like)
    except BitwrightError:
        return 0.0
    return costs.estimate(model.tree, plans, spec, None).disk.low + model.download_bytes
