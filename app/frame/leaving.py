"""Confirmation before the window closes while a run or a conversion is active."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from PySide6.QtCore import QObject, QTimer, Signal

from app.frame.error_strip import ErrorStrip
from app.shared.context import Remedy
from core.service.messages import ConvertModel

if TYPE_CHECKING:
    from app.shared.calls.calls import Calls
    from app.shared.run.runs import Runs

PATIENCE_MS: Final = 2000


class Leaving(QObject):
    """A question in the strip, asked once; its answer is remembered.

    Signals:
        ready: the window may close now.
        stopping: the run is being stopped; the window closes afterwards.
    """

    ready = Signal()
    stopping = Signal()

    def __init__(self, runs: Runs, calls: Calls, strip: ErrorStrip, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._runs, self._calls, self._strip = runs, calls, strip
        self._decided = self._is_stopping = self._is_asking = False
        self._patience = QTimer(self)
        self._patience.setSingleShot(True)
        self._patience.setInterval(PATIENCE_MS)
        self._patience.timeout.connect(self._done)
        strip.closed.connect(self._answered)
        runs.ended.connect(self._run_ended)

    def may_close(self) -> bool:
        """Return whether the window may close now; otherwise show the question."""
        if self._decided or not (self._runs.active or self._calls.is_on(ConvertModel)):
            return True
        if not self._runs.active:
            self._ask_of_conversion()
        elif not self._is_stopping and not self._is_asking:
            self._is_asking = True
            also = self.tr(" The active conversion will be cancelled.") if self._calls.is_on(ConvertModel) else ""
            self._strip.ask(
                self.tr("A run is active."),
                self.tr("It can continue in the background. Bitwright shows it again at the next start.") + also,
                [
                    Remedy(self.tr("Keep running"), self.keep),
                    Remedy(self.tr("Cancel run"), self.stop),
                    Remedy(self.tr("Keep window open"), lambda: None),
                ],
            )
        return False

    def _ask_of_conversion(self) -> None:
        """Ask whether to cancel a conversion. If it ends by itself, the question is withdrawn."""
        self._strip.ask(
            self.tr("A conversion is active."),
            self.tr("Closing the window cancels it and removes its files."),
            [Remedy(self.tr("Cancel conversion"), self._done), Remedy(self.tr("Keep window open"), lambda: None)],
        )

    def keep(self) -> None:
        """Let the run continue without the window."""
        if self._runs.active:
            self._runs.detach()
        self._done()

    def stop(self) -> None:
        """Cancel the run; the window closes when it has ended, or after two seconds."""
        if not self._runs.active:
            self._done()
            return
        self._is_stopping = True
        self._patience.start()
        self.stopping.emit()
        self._runs.cancel()

    def _answered(self) -> None:
        self._is_asking = False

    def _run_ended(self) -> None:
        if self._is_stopping:
            self._done()
        elif self._is_asking:
            self._strip.dismiss()

    def _done(self) -> None:
        if not self._decided:
            self._patience.stop()
            self._decided = True
            self.ready.emit()
