"""The figures of the answer that is coming or came last: speed, time to the first token, tokens, context used."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QGridLayout, QLabel, QProgressBar, QWidget

from app.models.conversation import Figures
from core.wording import duration, figure

_DASH = "\N{EN DASH}"


class ChatFigures(QWidget):
    """Four numbers and a bar; every number keeps its place and its width."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._values: dict[str, QLabel] = {}
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(8)
        grid.setVerticalSpacing(2)
        grid.setColumnStretch(0, 1)
        rows = (
            ("speed", self.tr("Tokens per second"), self.tr("Of the answer, after its first token")),
            ("first", self.tr("Time to first token"), self.tr("How long the model read before it began to answer")),
            ("prompt", self.tr("Prompt tokens"), self.tr("All that the model read: system prompt and conversation")),
            ("tokens", self.tr("Answer tokens"), self.tr("A token is a word or a piece of one")),
            ("context", self.tr("Context used"), self.tr("How much of what the model can read at once is taken")),
        )
        for row, (key, text, why) in enumerate(rows):
            name, value = QLabel(text, self), QLabel(_DASH, self)
            name.setToolTip(why)
            value.setObjectName(f"figure_{key}")
            value.setAlignment(Qt.AlignmentFlag.AlignRight)
            value.setAccessibleName(text)
            grid.addWidget(name, row, 0)
            grid.addWidget(value, row, 1)
            self._values[key] = value
        self._bar = QProgressBar(self)
        self._bar.setTextVisible(False)
        self._bar.setFixedHeight(6)
        self._bar.setAccessibleName(self.tr("Context used"))
        grid.addWidget(self._bar, len(rows), 0, 1, 2)
        self.show_figures(None, 0)

    def show_figures(self, figures: Figures | None, context: int, about: bool = False) -> None:
        """Show `figures`; None, and a `context` of 0, are not known yet; `about`: worked out, not counted."""
        sign = "\N{ALMOST EQUAL TO} " if about else ""
        known = figures or Figures()
        self._set("speed", sign + figure(known.tokens_per_second) if known.tokens_per_second else _DASH)
        self._set("first", duration(known.first_token_seconds) if known.first_token_seconds else _DASH)
        self._set("prompt", f"{known.prompt_tokens:,}" if known.prompt_tokens else _DASH)
        self._set("tokens", f"{sign}{known.tokens:,}" if known.tokens else _DASH)
        if known.prompt_tokens and context:
            self._set("context", self.tr("{used} of {all}").format(used=f"{known.used:,}", all=f"{context:,}"))
        else:
            self._set("context", f"{_DASH} of {context:,}" if context else _DASH)
        self._bar.setRange(0, max(1, context))
        self._bar.setValue(min(known.used if known.prompt_tokens else 0, max(1, context)))

    def _set(self, key: str, text: str) -> None:
        if self._values[key].text() != text:
            self._values[key].setText(text)
