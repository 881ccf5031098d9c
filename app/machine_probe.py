"""Measures once which devices this machine has and how fast they are, for the estimates of time.

Waits until no run is active: the two would slow each other down and distort the result.
"""

from __future__ import annotations

import logging

from PySide6.QtCore import QObject

from app.shared.context import Context
from core.errors import BitwrightError
from core.service.messages import MeasureMachine

_log = logging.getLogger(__name__)


class MachineProbe(QObject):
    """The measurement of the devices, made by the service while no run is active."""

    def __init__(self, context: Context, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._context = context
        self._asked = False
        context.runs.ended.connect(self.begin)

    def begin(self) -> None:
        """Measure now, unless that was done; if a run is active, measure after it has ended."""
        if self._asked or self._context.runs.active:
            return
        self._asked = True
        self._context.calls.start(MeasureMachine(), on_success=self._context.draft.set_machine, on_failure=_failed)


def _failed(error: BitwrightError) -> None:
    # only the estimates of time are missing then
    _log.warning("This machine could not be measured: %s", error)
