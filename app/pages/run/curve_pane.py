"""The progress of a run in figures: the start or the loss of a block, or the end-to-end stage, and the list of blocks.

What happens now is shown, unless the user picks a block or another view.
"""

from __future__ import annotations

from typing import Final

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QHBoxLayout, QPushButton, QSizePolicy, QSplitter, QStackedLayout, QVBoxLayout, QWidget

from app.pages.run.block_list import BlockList
from app.pages.run.divergence_plot import DivergencePlot
from app.pages.run.layer_errors import LayerErrors
from app.pages.run.loss_plot import LossPlot
from app.shared.run.record import RunRecord
from app.shared.run.words import curve_title, curve_words, finding_start, stage_words, start_words
from app.theme import Theme
from app.widgets.elided_label import ElidedLabel
from app.widgets.panel import Panel
from app.widgets.segmented import Option, Segmented
from app.widgets.tinted_label import TintedLabel

_WIDEST_LIST = 560
START, LOSS, END_TO_END = "start", "loss", "end to end"
_VIEWS: Final = (START, LOSS, END_TO_END)


class CurvePane(QSplitter):
    """Plot on the left, blocks on the right."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(Qt.Orientation.Horizontal, parent)
        self._record: RunRecord | None = None
        self._picked = -1
        self._chosen = ""
        self.plot = LossPlot(theme)
        self.layers = LayerErrors(theme)
        self.divergence = DivergencePlot(theme)
        names = (self.tr("Start"), self.tr("Loss"), self.tr("End to end"))
        self.views = Segmented(theme, [Option(view, name) for view, name in zip(_VIEWS, names, strict=True)])
        self.views.setAccessibleName(self.tr("Figures of the run"))
        self.views.setObjectName("curve_views")
        self.views.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Preferred)
        self.views.chosen.connect(self._choose)
        self.blocks = BlockList(theme)
        self.blocks.picked.connect(self._pick)
        self._title = TintedLabel(theme, bold=True)
        self._title.setObjectName("curve_title")
        self._words = ElidedLabel()
        self._words.setObjectName("curve_words")
        self._back = QPushButton(self.tr("Show current block"))
        self._back.setObjectName("follow")
        self._back.setFlat(True)
        self._back.clicked.connect(self._follow)
        self._back.hide()
        self.setChildrenCollapsible(False)
        self.setHandleWidth(12)
        self.addWidget(self._curve_side(theme))
        self.addWidget(self._block_side(theme))
        self.setStretchFactor(0, 3)
        self.setStretchFactor(1, 2)

    def show_record(self, record: RunRecord) -> None:
        """Update from a record. A different record resets the view."""
        fresh = record is not self._record
        if fresh:
            self._record, self._picked, self._chosen = record, -1, ""
            self.blocks.table.show(None)
            self.blocks.follow()
        self.blocks.table.show(record)
        self.blocks.reveal()
        if fresh and self.block >= 0 and self.blocks.table.current < 0:
            self.blocks.mark(self.block)
        self._refresh()

    @property
    def block(self) -> int:
        """Number of the block whose curve is shown."""
        record = self._record
        if record is None:
            return -1
        if self._picked >= 0:
            return self._picked
        return record.block if record.active or record.block >= 0 else max(record.curves, default=-1)

    @property
    def view(self) -> str:
        """The view that is shown: that of the user, or of what happens now."""
        record, shown = self._record, self._available()
        if record is None or self._chosen in shown:
            return self._chosen or LOSS
        if END_TO_END in shown and self._picked < 0:
            return END_TO_END
        curve = record.curves.get(self.block)
        return START if START in shown and (curve is None or not curve.losses) else LOSS

    def _available(self) -> tuple[str, ...]:
        """Return the views that have something to show for the block."""
        record = self._record
        if record is None:
            return (LOSS,)
        start = self.block in record.starts or (record.active and self.block == record.block and finding_start(record))
        loss = bool(record.iterations) or not start
        return tuple(
            view for view, there in zip(_VIEWS, (start, loss, bool(record.divergences.losses)), strict=True) if there
        )

    def _choose(self, view: str) -> None:
        self._chosen = ""
        self._chosen = "" if view == self.view else view
        self._refresh()

    def _pick(self, block: int) -> None:
        self._picked = block
        self._chosen = "" if self._chosen == END_TO_END else self._chosen
        self._refresh()

    def _follow(self) -> None:
        self.blocks.follow()
        self._chosen = ""
        self._pick(-1)
        self.blocks.setFocus(Qt.FocusReason.OtherFocusReason)

    def _refresh(self) -> None:
        record, block = self._record, self.block
        if record is None:
            return
        steps = END_TO_END in self._available()
        away = self._picked >= 0 and (steps or self._picked != record.block)
        self._back.setVisible(record.active and away)
        self._back.setText(self.tr("Show current stage") if steps else self.tr("Show current block"))
        shown, view = self._available(), self.view
        self.views.setVisible(len(shown) > 1)
        for name in _VIEWS:
            self.views.button(name).setVisible(name in shown)
        self.views.set_value(view)
        self._title.setText(curve_title(record, block, view))
        words = {START: start_words(record, block), END_TO_END: stage_words(record)}
        self._words.setText(words.get(view, curve_words(record, block)))
        self._stack.setCurrentIndex(_VIEWS.index(view))
        if view == START:
            known = record.starts.get(block, {})
            waiting = block == record.block and block not in record.blocks and record.active
            self.layers.show_errors([kind for kind in record.kinds if waiting or kind in known], known)
        elif view == END_TO_END:
            last = record.end_to_end
            self.divergence.show_curve(record.divergences, 0 if last is None else last.steps)
        else:
            self._show_loss(record, block)

    def _show_loss(self, record: RunRecord, block: int) -> None:
        curve = record.curves.get(block)
        if curve is not None and curve.losses:
            figures = record.blocks.get(block)
            self.plot.show_curve(curve, record.iterations, figures.best if figures is not None else 0)
        else:
            self.plot.show_message(self._nothing(record, block))

    def _nothing(self, record: RunRecord, block: int) -> str:
        """Return the reason why there is no curve."""
        if block in record.blocks:
            if record.iterations:
                return self.tr("No losses were recorded for this block.")
            return self.tr("This recipe does not tune, so there is no curve.")
        if not record.active:
            return self.tr("This block was not reached.")
        if block < 0 or self._picked < 0:
            return self.tr("The curve of the current block appears here.")
        return self.tr("This block has not been tuned yet.")

    def _curve_side(self, theme: Theme) -> QWidget:
        head = QHBoxLayout()
        head.setSpacing(16)
        head.addLayout(_two_lines(self._title, self._words), 1)
        head.addWidget(self._back)
        head.addWidget(self.views)
        views = QWidget()
        self._stack = QStackedLayout(views)
        for view in (self.layers, self.plot, self.divergence):
            self._stack.addWidget(view)
        panel = Panel(theme)
        panel.column.addLayout(head)
        panel.column.addWidget(views, 1)
        return panel

    def _block_side(self, theme: Theme) -> QWidget:
        title = TintedLabel(theme, self.tr("&Blocks"), bold=True)
        title.setBuddy(self.blocks)
        legend = ElidedLabel(text=self.tr("Loss: plain rounding \N{RIGHTWARDS ARROW} result, log scale"))
        panel = Panel(theme)
        panel.setMaximumWidth(_WIDEST_LIST)
        panel.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        panel.column.addLayout(_two_lines(title, legend))
        panel.column.addWidget(self.blocks, 1)
        return panel


def _two_lines(title: QWidget, words: QWidget) -> QVBoxLayout:
    """Return a heading above its explanation, which one line has no space for beside the buttons."""
    column = QVBoxLayout()
    column.setSpacing(2)
    column.addWidget(title)
    column.addWidget(words)
    return column
