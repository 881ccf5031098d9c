"""Statistics of the current or last answer: speed of prefill and decode, tokens, memory."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QGridLayout, QLabel, QWidget

from core.inference.generation.reply import Statistics
from core.wording import duration, figure, human

_DASH = "\N{EN DASH}"


class StatisticsTable(QWidget):
    """Figures in fixed places, one below the other."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._values: dict[str, QLabel] = {}
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(8)
        grid.setVerticalSpacing(2)
        grid.setColumnStretch(0, 1)
        rows = (
            ("speed", self.tr("Decode, tokens per second"), self.tr("Generation speed after the first token")),
            ("first", self.tr("Time to first token"), self.tr("Time of the prefill, until the answer begins")),
            (
                "reading",
                self.tr("Prefill, tokens per second"),
                self.tr("Processing speed of the new part of the prompt"),
            ),
            ("prompt", self.tr("Prompt tokens"), self.tr("System prompt and conversation")),
            ("reused", self.tr("Cached prompt tokens"), self.tr("Already in the cache from an earlier turn")),
            ("tokens", self.tr("Answer tokens"), self.tr("A token is a word or a part of a word")),
            ("memory", self.tr("Memory"), self.tr("Weights and cache")),
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
        self.show_figures(None)

    def show_figures(self, figures: Statistics | None, memory: int = 0, about: bool = False) -> None:
        """Show the statistics, None for none yet.

        Args:
            figures: statistics of the answer.
            memory: memory of the loaded model, used if the answer does not report it.
            about: the figures are estimates.
        """
        sign = "\N{ALMOST EQUAL TO} " if about else ""
        known = figures or Statistics()
        self._set("speed", sign + figure(known.tokens_per_second) if known.tokens_per_second else _DASH)
        self._set("first", duration(known.first_token_seconds) if known.first_token_seconds else _DASH)
        self._set("reading", figure(known.prompt_tokens_per_second) if known.prompt_tokens_per_second else _DASH)
        self._set("prompt", f"{known.prompt_tokens:,}" if known.prompt_tokens else _DASH)
        self._set("reused", f"{known.cached_tokens:,}" if known.prompt_tokens else _DASH)
        self._set("tokens", f"{sign}{known.tokens:,}" if known.tokens else _DASH)
        held = known.memory_bytes or memory
        self._set("memory", human(held) if held else _DASH)

    def _set(self, key: str, text: str) -> None:
        if self._values[key].text() != text:
            self._values[key].setText(text)
