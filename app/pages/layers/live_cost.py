"""The totals of the map at the bottom of the panel: size in each format, bits, memory and predicted loss increase.

Shows figures that it is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from PySide6.QtWidgets import QVBoxLayout, QWidget

from app.pages.layers.running_memory import RunningMemory
from app.shared.formats.words import title
from app.shared.rule_words import counted
from app.widgets.elided_label import ElidedLabel
from app.widgets.note import Note
from app.widgets.tinted_label import TintedLabel
from core.estimation.sizes import OutputSize
from core.wording import figure, human

if TYPE_CHECKING:
    from app.theme import Theme

_ARROW: Final = "\N{RIGHTWARDS ARROW}"


class LiveCost(QWidget):
    """A widget of at most four lines of totals."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._total = TintedLabel(theme, bold=True, parent=self)
        self._total.setObjectName("total")
        self._others = Note(theme, parent=self)
        self._others.setObjectName("other_formats")
        self._average = Note(theme, parent=self)
        self._average.setObjectName("average")
        self._memory = ElidedLabel(theme, role="muted", parent=self)
        self._memory.setObjectName("running_memory")
        self._loss_increase = ElidedLabel(theme, role="muted", parent=self)
        self._loss_increase.setObjectName("loss_increase_total")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        for widget in (self._total, self._others, self._average, self._memory, self._loss_increase):
            column.addWidget(widget)
        self.show_nothing()

    def show_nothing(self) -> None:
        """Clear all figures, if there is no model or the map does not fit it."""
        self._total.setText("\N{EN DASH}")
        for note in (self._others, self._average):
            note.set_text("")
        self._memory.hide()
        self._loss_increase.hide()

    def show_sizes(self, before: int, sizes: Mapping[str, OutputSize]) -> None:
        """Show the bytes of the source, and the size of the output in each format, the first format first."""
        (first, size), *others = sizes.items()
        self._total.setText(f"{human(before)} {_ARROW} {human(size.total)}")
        self._total.setToolTip(f"{before:,} {_ARROW} {size.total:,} bytes as {title(first)}")
        self._others.set_text(", ".join(f"{human(other.total)} as {title(name)}" for name, other in others))
        self._average.set_text(self.tr("{:.2f} bits per quantized weight").format(size.effective_bits))

    def show_memory(self, memory: RunningMemory) -> None:
        """Show the memory needed for inference and the free memory."""
        self._memory.set_role("muted" if memory.fits else "warning")
        self._memory.set_text(memory.text, memory.more)
        self._memory.show()

    def show_loss_increase(self, loss_increase: float | None, missing: int = 0) -> None:
        """Show the predicted loss increase of the map without `missing` layers; None if it was not measured."""
        self._loss_increase.setVisible(loss_increase is not None)
        if loss_increase is not None:
            text = self.tr("Predicted loss increase {}").format(figure(loss_increase))
            if missing:
                text = self.tr("{0}, without {1}").format(text, counted(missing))
            about = self.tr("In nats per token, summed over the layers. Tuning reduces it.")
            self._loss_increase.set_text(text, about)
