"""Download of a model's weights ahead of a run, one at a time. Depends on QtCore only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, Signal

from core.errors import BitwrightError
from core.events import Event
from core.service.messages import DownloadModel, ModelFolder

if TYPE_CHECKING:
    from app.shared.calls.calls import Call, Calls


class ModelDownload(QObject):
    """The current download.

    Signals:
        changed: a download began or ended.
        reported: an `Event` of the call.
        finished: the name and the folder of a downloaded model.
        failed: the name of a model that could not be downloaded, and the error.
    """

    changed = Signal()
    reported = Signal(object)
    finished = Signal(str, str)
    failed = Signal(str, object)

    def __init__(self, calls: Calls, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._calls = calls
        self._call: Call | None = None
        self._turn = 0
        self.name = ""

    @property
    def running(self) -> bool:
        """Return whether a download is active."""
        return self._call is not None

    def start(self, name: str) -> None:
        """Download a model; does nothing while another download is active."""
        if self._call is not None:
            return
        self._turn += 1
        turn, self.name = self._turn, name
        self._call = self._calls.start(
            DownloadModel(name),
            on_success=lambda found: self._succeeded(turn, found),
            on_failure=lambda error: self._failed(turn, error),
            on_event=lambda event: self._reported(turn, event),
        )
        self.changed.emit()

    def cancel(self) -> None:
        """Cancel the download; completed parts stay in the cache."""
        if self._call is not None:
            self._call.stop()
            self._end()

    def _end(self) -> None:
        self._turn += 1  # late events of the call are dropped
        self._call = None
        self.changed.emit()

    def _reported(self, turn: int, event: Event) -> None:
        if turn == self._turn:
            self.reported.emit(event)

    def _succeeded(self, turn: int, found: ModelFolder) -> None:
        if turn == self._turn:
            self._end()
            self.finished.emit(self.name, str(found.path))

    def _failed(self, turn: int, error: BitwrightError) -> None:
        if turn == self._turn:
            self._end()
            self.failed.emit(self.name, error)
