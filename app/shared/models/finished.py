"""The outputs of finished runs on this machine, listed in a child process.

Reading hundreds of job folders takes a while. Depends on QtCore only.
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
    """The finished models found last; `looked` is true once the list was read.

    Signals:
        changed: a search has ended.
    """

    changed = Signal()

    def __init__(self, calls: Calls, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._calls = calls
        self._looking = self._again = False
        self.looked = False
        self.choices: list[ModelChoice] = []

    def look(self) -> None:
        """Read the list again; if a search is active, repeat it afterwards, as it may have begun too early."""
        if self._looking:
            self._again = True
            return
        self._looking = True
        self._calls.start(ListOutputs(), on_success=self._found, on_failure=self._failed)

    def _found(self, found: OutputList) -> None:
        self.choices = from_outputs(found.outputs)
        self._end()

    def _failed(self, error: BitwrightError) -> None:
        # the list stays as it was; the user did not request this
        _log.warning("The finished models could not be listed: %s", error)
        self._end()

    def _end(self) -> None:
        self._looking, self.looked = False, True
        again, self._again = self._again, False
        self.changed.emit()
        if again:
            self.look()
