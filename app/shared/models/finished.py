"""The models that runs on this machine made, looked for without holding up the window.

A child process reads them, as hundreds of job folders take a while. Depends on QtCore only.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, Signal

from app.shared.models.choices import ModelChoice, from_outputs
from core.errors import BitwrightError
from core.service.messages import ListOutputs, OutputList

if TYPE_CHECKING:
    from app.shared.calls.calls import Calls

_log = logging.getLogger(__name__)


class FinishedModels(QObject):
    """What was found the last time; `looked` is whether there was a first time.

    Signals:
        changed: a look is over.
    """

    changed = Signal()

    def __init__(self, calls: Calls, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._calls = calls
        self._looking = self._again = False
        self.looked = False
        self.choices: list[ModelChoice] = []

    def look(self) -> None:
        """Look now; once more afterwards, if a look is under way that may have begun too early."""
        if self._looking:
            self._again = True
            return
        self._looking = True
        self._calls.start(ListOutputs(), on_success=self._found, on_failure=self._failed)

    def _found(self, found: OutputList) -> None:
        self.choices = from_outputs(found.outputs)
        self._end()

    def _failed(self, error: BitwrightError) -> None:
        # the list stays as it was; the user asked for nothing that could have failed
        _log.warning("The finished models were not found: %s", error)
        self._end()

    def _end(self) -> None:
        self._looking, self.looked = False, True
        again, self._again = self._again, False
        self.changed.emit()
        if again:
            self.look()
