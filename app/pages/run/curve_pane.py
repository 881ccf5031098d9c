"""The loss curve of a block with its heading, and the list of blocks."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QHBoxLayout, QPushButton, QSizePolicy, QSplitter, QWidget

from app.pages.run.block_list import BlockList
from app.pages.run.loss_plot import LossPlot
from app.shared.run.record import RunRecord
from app.shared.run.words import curve_title, curve_words
from app.theme import Theme
from app.widgets.elided_label import ElidedLabel
from app.widgets.panel import Panel
from app.widgets.tinted_label import TintedLabel

_WIDEST_LIST = 560


class CurvePane(QSplitter):
    """Plot on the left, blocks on the right."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(Qt.Orientation.Horizontal, parent)
        self._record: RunRecord | None = None
        self._picked = -1
        self.plot = LossPlot(theme)
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
            self._record, self._picked = record, -1
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

    def _pick(self, block: int) -> None:
        self._picked = block
        self._refresh()

    def _follow(self) -> None:
        self.blocks.follow()
        self._pick(-1)
        self.blocks.setFocus(Qt.FocusReason.OtherFocusReason)

    def _refresh(self) -> None:
        record, block = self._record, self.block
        if record is None:
            return
        self._back.setVisible(record.active and self._picked >= 0 and self._picked != record.block)
        self._title.setText(curve_title(record, block))
        self._words.setText(curve_words(record, block))
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
        head.addWidget(self._title)
        head.addWidget(self._words, 1)
        head.addWidget(self._back)
        panel = Panel(theme)
        panel.column.addLayout(head)
        panel.column.addWidget(self.plot, 1)
        return panel

    def _block_side(self, theme: Theme) -> QWidget:
        title = TintedLabel(theme, self.tr("&Blocks"), bold=True)
        title.setBuddy(self.blocks)
        legend = ElidedLabel(text=self.tr("Loss: plain rounding \N{RIGHTWARDS ARROW} after tuning, log scale"))
        head = QHBoxLayout()
        head.setSpacing(16)
        head.addWidget(title)
        head.addWidget(legend, 1)
        panel = Panel(theme)
        panel.setMaximumWidth(_WIDEST_LIST)
        panel.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        panel.column.addLayout(head)
        panel.column.addWidget(self.blocks, 1)
        return panel
