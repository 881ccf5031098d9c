"""Whether a run that ended without a result can be started once more now. Arithmetic and one look at the disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from app.shared.machine_budget import disk_problem
from core.errors import BitwrightError
from core.estimate import costs
from core.formats.grids import plan_layers

if TYPE_CHECKING:
    from app.shared.draft import OpenedModel
    from app.shared.run_record import RunRecord
    from core.spec import JobSpec


class TryAgain:
    """What stands against the runs that are shown; what one needs is worked out once."""

    def __init__(self) -> None:
        self._of: tuple[RunRecord, OpenedModel | None] | None = None
        self._needed = 0.0

    def obstacle(self, record: RunRecord, model: OpenedModel | None) -> str:
        """The reason why the run of `record` cannot be started again now, "" where there is none or nobody knows.

        Args:
            model: the one that is open in the window.
        """
        if record.spec is None:
            return ""
        if self._of is None or self._of[0] is not record or self._of[1] is not model:
            self._of, self._needed = (record, model), needed_bytes(record, record.spec, model)
        return disk_problem(self._needed, Path(record.spec.output))


def needed_bytes(record: RunRecord, spec: JobSpec, model: OpenedModel | None) -> float:
    """Bytes of disk of the run: by the shapes of its model if that is open, else as it told itself; 0 if not known."""
    if model is None or model.name != spec.model or model.tree.refusal:
        return sum(record.planned.values())
    try:
        plans = plan_layers(model.tree, spec.bits_map, spec.formats)
    except BitwrightError:
        return 0.0
    return costs.estimate(model.tree, plans, spec, None).disk.low + model.download_bytes
