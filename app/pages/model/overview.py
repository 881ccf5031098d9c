"""An opened model without its card: name, origin, refusal, download, facts and estimate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QEvent, QObject, QSize, Qt, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QPushButton, QScrollArea, QSizePolicy, QVBoxLayout, QWidget

from app.pages.model.cost_bars import CostBars
from app.pages.model.facts import facts, origin_text
from app.pages.model.facts_table import ModelFacts
from app.pages.model.refusal import Refusal
from app.theme import Theme
from app.widgets.elided_label import ElidedLabel
from app.widgets.note import Note
from app.widgets.transfer_bar import TransferBar
from core.wording import human

if TYPE_CHECKING:
    from app.shared.models.opened import OpenedModel


class ModelOverview(QScrollArea):
    """A scroll area that scrolls only if the window is too low for its content.

    Signals:
        download_wanted: the user wants to download the weights now.
        download_cancelled: the user cancelled the download.
    """

    download_wanted = Signal()
    download_cancelled = Signal()

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._missing = self._fetching = False
        self.setObjectName("overview")
        self.setAccessibleName(self.tr("Model information"))
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setWidgetResizable(True)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        self._inner = QWidget()
        self.setWidget(self._inner)
        # The background of the page, instead of the white one of lists.
        self.viewport().setAutoFillBackground(False)
        self._inner.setAutoFillBackground(False)
        self._name = ElidedLabel(theme, scale=1.4, bold=True, middle=True)
        self._name.setObjectName("model_name")
        self._origin = ElidedLabel(theme, role="muted", middle=True)
        self._origin.setObjectName("origin")
        self._note = Note(theme, parent=self._inner)
        self._note.setObjectName("note")
        self.refusal = Refusal(theme)
        self._make_download(theme)
        self.facts = ModelFacts(theme)
        self._heading = ElidedLabel(theme, self.tr("Estimated requirements"), bold=True)
        self._basis = ElidedLabel(theme, role="muted")
        self._basis.setObjectName("basis")
        self.bars = CostBars(theme)
        column = QVBoxLayout(self._inner)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(8)
        for widget in (self._name, self._origin, self._note, self.refusal, self._offer, self.transfer, self.facts):
            column.addWidget(widget)
        line = QHBoxLayout()
        line.setSpacing(8)
        line.addWidget(self._heading)
        line.addWidget(self._basis, 1)
        column.addSpacing(8)
        column.addLayout(line)
        column.addWidget(self.bars)
        column.addStretch(1)
        self.transfer.hide()
        theme.changed.connect(self._tint)
        self._tint()

    def sizeHint(self) -> QSize:
        inner = self._inner.sizeHint()
        width = self.viewport().width() or inner.width()
        height = self._inner.heightForWidth(width) if self._inner.hasHeightForWidth() else inner.height()
        return QSize(inner.width(), height)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self.updateGeometry()  # the height of the content depends on its width

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Update the height when the content changes, after Qt's own handling."""
        if watched is self._inner and event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return super().eventFilter(watched, event)

    def show_model(self, opened: OpenedModel, license: str, stated_by: str = "") -> None:
        """Show a model; `license` as stated by `stated_by`, or ""."""
        self._name.setText(opened.label)
        self._origin.setText(origin_text(opened))
        self._note.set_text(opened.note)
        quantized = "quantization_config" in opened.tree.config
        self.refusal.show_reason(opened.tree.refusal, quantized=bool(opened.tree.refusal) and quantized)
        self.facts.show_facts(facts(opened, license, stated_by))
        self._missing = bool(opened.download_bytes) and not opened.tree.refusal
        self.download.setText(self.tr("Download now ({0})").format(human(opened.download_bytes)))
        self._show_offer()

    def show_basis(self, text: str) -> None:
        """Show the settings that the estimate is based on."""
        self._heading.show()
        self._basis.show()
        self._basis.setText(text)

    def hide_estimate(self) -> None:
        """Hide the estimate."""
        for widget in (self._heading, self._basis, self.bars):
            widget.hide()

    def show_download(self, running: bool, mine: bool) -> None:
        """Show an active download of this model (`mine`) or of another one, which a new one must wait for."""
        if self.transfer.isHidden() == running:
            self.transfer.setVisible(running)
            if not running:
                self.transfer.end()
        self._fetching = running and mine
        self.download.setEnabled(not running)
        waits = self.tr("Another download is active.")
        self._offer_text.setText(waits if running else self.tr("Otherwise it is downloaded at the start of a run."))
        self._show_offer()

    def _show_offer(self) -> None:
        self._offer.setVisible(self._missing and not self._fetching)

    def _make_download(self, theme: Theme) -> None:
        self._offer = QWidget()
        self.download = QPushButton()
        self.download.setObjectName("download")
        self.download.clicked.connect(self.download_wanted)
        self._offer_text = ElidedLabel(
            theme, self.tr("Otherwise it is downloaded at the start of a run."), role="muted"
        )
        row = QHBoxLayout(self._offer)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(8)
        row.addWidget(self.download)
        row.addWidget(self._offer_text, 1)
        self.transfer = TransferBar(theme)
        self.transfer.setObjectName("transfer")
        self.transfer.cancelled.connect(self.download_cancelled)

    def _tint(self) -> None:
        self.download.setIcon(self._theme.icon("download"))
