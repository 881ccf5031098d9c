"""The share of the context that the conversation uses: a short bar and a text below the composer."""

from __future__ import annotations

from typing import Final

from PySide6.QtWidgets import QHBoxLayout, QProgressBar, QWidget

from app.theme import Theme
from app.widgets.elided_label import ElidedLabel

_BAR_WIDTH: Final = 96
_NEARLY: Final = 0.85


class ContextMeter(QWidget):
    """A bar and a text, which keep their place while the use is unknown."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._bar = QProgressBar(self)
        self._bar.setTextVisible(False)
        self._bar.setFixedSize(_BAR_WIDTH, 6)
        self._bar.setAccessibleName(self.tr("Context used"))
        self._words = ElidedLabel(theme, role="muted", parent=self)
        self._words.setObjectName("figure_context")
        self._words.setAccessibleName(self.tr("Context used"))
        row = QHBoxLayout(self)
        row.setContentsMargins(12, 0, 12, 0)
        row.setSpacing(8)
        row.addWidget(self._bar)
        row.addWidget(self._words, 1)
        self.setFixedHeight(self._words.sizeHint().height() + 2)
        self.show_use(0, 0)

    def show_use(self, used: int, context: int, dropped: int = 0) -> None:
        """Show the tokens used of a context; 0 for both if unknown.

        Args:
            used, context: tokens.
            dropped: number of oldest messages that are not sent to the model any more.
        """
        for widget in (self._bar, self._words):
            widget.setVisible(bool(context))
        self._bar.setRange(0, max(1, context))
        self._bar.setValue(min(used, max(1, context)))
        words = self.tr("{used} of {all} tokens") if used else self.tr("Context: {all} tokens")
        words = words.format(used=f"{used:,}", all=f"{context:,}")
        full = bool(context) and used >= _NEARLY * context
        if dropped:
            words += ", " + self._dropped_words(dropped)
        elif full:
            words += ", " + self.tr("nearly full")
        self._words.set_role("warning" if dropped or full else "muted")
        self._words.set_text(words, self._explained(dropped))

    def _dropped_words(self, count: int) -> str:
        if count == 1:
            return self.tr("oldest message omitted")
        return self.tr("{count} oldest messages omitted").format(count=count)

    def _explained(self, dropped: int) -> str:
        if dropped:
            return self.tr("The conversation exceeds the context of the model. Its beginning is not sent any more.")
        return self.tr("Share of the model's context used by the conversation")
