"""Measures once what this machine can compute on, and how fast, for the estimates of time.

Waits while a run is on: both would be slowed down, and the figure would be wrong. Knows the service's call and the
draft.
"""

from __future__ import annotations

import logging

from PySide6.QtCore import QObject

from app.shared.context import Context
from core.errors import BitwrightError
from core.service.messages import MeasureMachine

_log = logging.getLogger(__name__)


class MachineProbe(QObject):
    """Asks the service about the devices, when there is quiet to measure in."""

    def __init__(self, context: Context, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._context = context
        self._asked = False
        context.runs.ended.connect(self.begin)

    def begin(self) -> None:
        """Measure, unless that was done or a run is on; the end of that run begins it then."""
        if self._asked or self._context.runs.active:
            return
        self._asked = True
        self._context.calls.start(MeasureMachine(), on_success=self._context.draft.set_machine, on_failure=_failed)


def _failed(error: BitwrightError) -> None:
    # without the figures there are no estimates of time, and everything else works
    _log.warning("This machine could not be measured: %s", error)
