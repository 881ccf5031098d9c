"""The bar at the top: the job in one line, and the main button. Shows the values of `app.frame.job_summary`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QSize, Signal
from PySide6.QtGui import QIcon, QPalette
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from app.theme import ICONS, Theme
from app.widgets.elided_label import ElidedLabel
from app.widgets.primary_button import make_primary

if TYPE_CHECKING:
    from app.frame.job_summary import Fact, Facts, Primary

_PROGRESS_WIDTH = 152
_REASON_WIDTH = 232
_ICONS = {"start": "play", "resume": "play", "pause": "pause", "chat": "chat", "": "play"}


class JobBar(QFrame):
    """Model, size, bits and device, with the primary action; during a run also its progress.

    Signals:
        triggered: the main button was pressed; its action.
        cancel_asked: the Cancel button was pressed.
    """

    triggered = Signal(str)
    cancel_asked = Signal()

    def __init__(self, theme: Theme, rail_width: int, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("job_bar")
        self._theme = theme
        self._action = self._why = ""
        brand = QLabel()
        brand.setPixmap(QIcon(str(ICONS / "bitwright.svg")).pixmap(QSize(32, 32)))
        brand.setFixedWidth(rail_width)
        brand.setProperty("alignment", "AlignCenter")  # by name: see app.theme
        brand.setAccessibleName("Bitwright")
        self._model = _Cell("job_model", self.tr("Model"), gives_way=True)
        self._size = _Cell("job_size", self.tr("Size"))
        self._bits = _Cell("job_bits", self.tr("Bits per weight"))
        self._device = _Cell("job_device", self.tr("Device"), gives_way=True)
        self._reason = _reason_label()
        self._progress = QProgressBar()
        self._progress.setObjectName("job_progress")
        self._progress.setAccessibleName(self.tr("Progress of the run"))
        self._progress.setRange(0, 1000)
        self._progress.setTextVisible(False)
        self._progress.setFixedSize(_PROGRESS_WIDTH, 8)
        self._remaining = ElidedLabel()
        self._remaining.setObjectName("job_remaining")
        self._cancel = QPushButton(self.tr("Cancel"))
        self._cancel.setObjectName("job_cancel")
        self._cancel.clicked.connect(self.cancel_asked)
        self._primary = make_primary(QPushButton(), theme)
        self._primary.setObjectName("primary")
        self._primary.clicked.connect(lambda: self.triggered.emit(self._action))
        self._lay_out(brand)
        theme.changed.connect(self._paint_new)
        self._show_button(self.tr("Quantize"), "", "")
        for hidden in (self._progress, self._remaining, self._cancel, self._reason):
            hidden.hide()

    def show_facts(self, facts: Facts) -> None:
        """Show the job in one line."""
        for cell, fact in (
            (self._model, facts.model), (self._size, facts.size), (self._bits, facts.bits), (self._device, facts.device)
        ):  # fmt: skip
            cell.show_fact(fact)

    def show_primary(self, primary: Primary) -> None:
        """Show the action of the main button and the progress of the run."""
        self._show_button(primary.text, primary.action, primary.reason)
        self._reason.setText(primary.reason)
        self._reason.setToolTip(primary.reason)
        running = primary.fraction is not None
        self._reason.setVisible(bool(primary.reason) and not running)
        self._progress.setVisible(running)
        self._remaining.setVisible(running)
        self._cancel.setVisible(running)
        self._cancel.setEnabled(primary.can_cancel)
        if primary.fraction is not None:
            percent = f"{100 * primary.fraction:.0f} %"
            self._progress.setValue(round(1000 * primary.fraction))
            text = f"{percent}, {primary.remaining}" if primary.remaining else percent
            self._remaining.set_text(text, primary.reason)
            self._progress.setAccessibleDescription(text)

    def press_primary(self) -> None:
        """Trigger the action of the main button, if it is enabled."""
        if self._primary.isEnabled():
            self._primary.click()

    @property
    def action(self) -> str:
        """The current action of the main button."""
        return self._action

    @property
    def reason(self) -> str:
        """The reason why the main button is disabled, or ""."""
        return self._why

    def _show_button(self, text: str, action: str, reason: str) -> None:
        self._action, self._why = action, reason
        self._primary.setText(text)
        self._primary.setEnabled(bool(action))
        self._primary.setAccessibleDescription(reason)
        self._paint_new()

    def _lay_out(self, brand: QLabel) -> None:
        run = QVBoxLayout()
        run.setSpacing(4)
        run.addStretch(1)
        run.addWidget(self._remaining)
        run.addWidget(self._progress)
        run.addStretch(1)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 8, 0, 8)  # margins are not mirrored for right-to-left scripts, spacings are
        row.setSpacing(16)
        row.addWidget(brand)
        for cell in (self._model, self._size, self._bits, self._device):
            row.addWidget(cell)
        row.addStretch(1)
        row.addWidget(self._reason)
        row.addLayout(run)
        buttons = QHBoxLayout()
        buttons.setSpacing(8)
        buttons.addWidget(self._cancel)
        buttons.addWidget(self._primary)
        row.addLayout(buttons)
        row.addSpacing(16)

    def _paint_new(self) -> None:
        self._primary.setIcon(self._theme.icon(_ICONS[self._action], "on_accent" if self._action else ""))
        palette = QPalette()
        palette.setColor(QPalette.ColorRole.WindowText, self._theme.color("muted"))
        self._reason.setPalette(palette)


class _Cell(QWidget):
    """A caption above a value. The value is elided when space is short if it `gives_way`."""

    def __init__(self, name: str, caption: str, *, gives_way: bool = False) -> None:
        super().__init__()
        self._value = ElidedLabel(text="\N{EN DASH}", bold=True)
        self._gives_way = gives_way
        self._value.setObjectName(name)
        self._value.setAccessibleName(caption)
        title = QLabel(caption)
        title.setForegroundRole(QPalette.ColorRole.PlaceholderText)
        small = title.font()
        small.setPointSizeF(small.pointSizeF() * 0.85)
        title.setFont(small)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addStretch(1)
        column.addWidget(title)
        column.addWidget(self._value)
        column.addStretch(1)

    def show_fact(self, fact: Fact) -> None:
        self._value.set_text(fact.text, fact.more)
        if not self._gives_way:
            self._value.setMinimumWidth(self._value.sizeHint().width())


def _reason_label() -> QLabel:
    label = QLabel()
    label.setObjectName("job_reason")
    label.setProperty("textFormat", "PlainText")
    label.setWordWrap(True)
    label.setMinimumWidth(_REASON_WIDTH)
    label.setMaximumHeight(40)
    label.setProperty("alignment", "AlignRight|AlignVCenter")
    return label
