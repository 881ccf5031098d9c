"""An active run, or one that ended without a result: activity, progress, losses and log.

Shows the record; Pause, Cancel and Try again act on the run of the window.
"""

from __future__ import annotations

from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QFont, QHideEvent, QShowEvent
from PySide6.QtWidgets import QHBoxLayout, QProgressBar, QPushButton, QSplitter, QVBoxLayout, QWidget

from app.pages.run.curve_pane import CurvePane
from app.pages.run.ending_banner import EndingBanner
from app.pages.run.run_log import RunLog
from app.pages.run.stage_line import StageLine
from app.pages.run.try_again import needed_bytes, obstacle
from app.shared.context import Context
from app.shared.run import words as run_words
from app.shared.run.record import RunRecord
from app.widgets.announcement import announce
from app.widgets.elided_label import ElidedLabel
from app.widgets.fact_row import FactRow
from app.widgets.tinted_label import TintedLabel

_TICK_MS = 1000
_HEADING = 1.35


class LiveView(QWidget):
    """The view of a run's record, updated by `show_record`."""

    def __init__(self, context: Context, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._context = context
        self._record: RunRecord | None = None
        self._announced = ""
        self._log_asked = False
        self._needed = 0.0
        theme = context.theme
        self._title = TintedLabel(theme, bold=True)
        self._title.setObjectName("run_title")
        font = QFont(self._title.font())
        font.setPointSizeF(font.pointSizeF() * _HEADING)
        self._title.setFont(font)
        self._title.setMinimumWidth(1)
        self._pause = QPushButton(self.tr("Pause"))
        self._pause.setObjectName("run_pause")
        self._pause.clicked.connect(self._toggle_pause)
        self._cancel = QPushButton(self.tr("Cancel"))
        self._cancel.setObjectName("run_cancel")
        self._cancel.setToolTip(self.tr("Cancel the run and remove its files"))
        self._cancel.clicked.connect(context.runs.cancel)
        self._stages = StageLine(theme)
        self._bar = QProgressBar()
        self._bar.setObjectName("run_progress")
        self._bar.setAccessibleName(self.tr("Progress of the run"))
        self._bar.setTextVisible(False)
        self._bar.setFixedHeight(8)
        self._bar.setRange(0, 1000)
        self._doing = ElidedLabel()
        self._doing.setObjectName("run_doing")
        self._left = TintedLabel(theme)
        self._left.setObjectName("run_left")
        self._facts = FactRow(theme)
        self._facts.setObjectName("run_facts")
        self._curves = CurvePane(theme)
        self._log = RunLog(theme)
        self._banner = EndingBanner(theme)
        self._banner.again.connect(self._try_again)
        self._banner.log_wanted.connect(self._show_log)
        self._lay_out()
        self._clock = QTimer(self)
        self._clock.setInterval(_TICK_MS)
        self._clock.timeout.connect(self._show_facts)
        self._clock.timeout.connect(self._show_obstacle)
        context.draft.model_changed.connect(self._renew_obstacle)

    def show_record(self, record: RunRecord) -> None:
        """Update from a record."""
        fresh = record is not self._record
        self._record = record
        ending = run_words.ending(record)
        self._title.setText(run_words.title_of(record))
        self._progress.setVisible(ending is None)
        self._banner.setVisible(ending is not None)
        for button in (self._pause, self._cancel):
            button.setVisible(record.active)
        self._show_state(record)
        if ending is not None:
            self._banner.show_ending(ending, again=record.spec is not None)
            self._renew_obstacle()
        reached = bool(record.total) and (record.active or bool(record.curves or record.blocks))
        self._curves.setVisible(reached or record.active)
        self._curves.show_record(record)
        self._log.show_record(record, fresh)
        self._log.setVisible(record.active or bool(record.logged) or (self._log_asked and not fresh))
        self._log_asked = self._log_asked and not fresh
        self._nothing.setVisible(self._log.isHidden() and self._curves.isHidden())
        self._facts.setVisible(record.active or record.started is not None)
        self._show_facts()
        self._announce(ending.headline if ending is not None else run_words.doing(record).split(",")[0])

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._clock.start()

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self._clock.stop()

    def _lay_out(self) -> None:
        top = QHBoxLayout()
        top.setSpacing(8)
        top.addWidget(self._title, 1)
        top.addWidget(self._pause)
        top.addWidget(self._cancel)
        below = QHBoxLayout()
        below.setSpacing(16)
        below.addWidget(self._doing, 1)
        below.addWidget(self._left)
        self._progress = QWidget()
        column = QVBoxLayout(self._progress)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(8)
        column.addWidget(self._stages)
        column.addWidget(self._bar)
        column.addLayout(below)
        self._nothing = QWidget()
        self._body = body = QSplitter(Qt.Orientation.Vertical)
        body.setChildrenCollapsible(False)
        body.setHandleWidth(12)
        body.addWidget(self._curves)
        body.addWidget(self._log)
        body.setStretchFactor(0, 4)
        body.setStretchFactor(1, 1)
        body.setSizes([4000, 1000])
        page = QVBoxLayout(self)
        page.setContentsMargins(0, 0, 0, 0)
        page.setSpacing(12)
        page.addLayout(top)
        page.addWidget(self._progress)
        page.addWidget(self._banner)
        page.addWidget(self._facts)
        page.addWidget(body, 1)
        page.addWidget(self._nothing, 1)

    def _show_state(self, record: RunRecord) -> None:
        waits = record.wants_pause
        self._pause.setText(self.tr("Resume") if waits else self.tr("Pause"))
        tip = self.tr("Continue with the next block") if waits else self.tr("Pause after this block")
        self._pause.setToolTip(tip)
        self._pause.setEnabled(record.can_pause)
        self._cancel.setEnabled(not record.stopping)
        self._stages.show_stage(record.stage, record.stages_done, record.stages)
        fetching = record.fetching
        share = record.fraction if fetching is None else min(1.0, max(0.0, fetching.fraction))
        # indeterminate while the progress is unknown, except while the run is paused
        unknown = not share and record.state in ("starting", "running")
        self._bar.setRange(0, 0 if unknown else 1000)
        self._bar.setValue(int(1000 * share))
        self._doing.set_text(run_words.doing(record))
        self._left.setText(run_words.left(record))

    def _show_facts(self) -> None:
        if self._record is not None:
            self._facts.show_facts(run_words.facts(self._record))

    def _show_obstacle(self) -> None:
        """Update the state of Try again, as free disk space changes without a notification."""
        record = self._record
        if record is not None and not record.active:
            reason = obstacle(record.spec, self._needed) if record.spec is not None else ""
            self._banner.show_obstacle(reason)

    def _renew_obstacle(self) -> None:
        """Compute the resources that the run needs again, with the model of the window."""
        record = self._record
        if record is not None and record.spec is not None and not record.active:
            self._needed = needed_bytes(record, record.spec, self._context.draft.model)
        self._show_obstacle()

    def _toggle_pause(self) -> None:
        if self._record is None:
            return
        if self._record.wants_pause:
            self._context.runs.resume()
        else:
            self._context.runs.pause()

    def _try_again(self) -> None:
        if self._record is not None and self._record.spec is not None:
            self._context.runs.start(self._record.spec)

    def _show_log(self) -> None:
        self._log_asked = True
        self._log.read_file()
        self._log.show()
        self._nothing.hide()
        self._body.setSizes([1000, 1000])
        self._log.setFocus(Qt.FocusReason.OtherFocusReason)

    def _announce(self, words: str) -> None:
        """Announce the activity to a screen reader, once for each stage or state."""
        key = words.split(" block ")[0]
        if key != self._announced:
            self._announced = key
            self.setAccessibleDescription(words)
            announce(self, words)
