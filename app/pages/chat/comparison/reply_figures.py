"""Statistics of an answer in a comparison: speed, time to first token, memory, perplexity of the model."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QPushButton, QWidget

from app.pages.chat.comparison.turns import Reply
from app.theme import Theme
from app.widgets.fact_row import FactRow
from app.widgets.note import Note
from core.wording import duration, figure, human

_DASH = "\N{EN DASH}"


class ReplyFigures(QWidget):
    """Four figures, a button that measures the perplexity, and an error. Reports its height for a width.

    Signals:
        measure_asked: the measurement of the perplexity should start or stop.
    """

    measure_asked = Signal()

    def __init__(self, theme: Theme, letter: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._facts = FactRow(theme, parent=self)
        self._facts.setObjectName(f"comparison_facts_{letter}")
        self._problem = Note(theme, parent=self)
        self._problem.setObjectName(f"comparison_problem_{letter}")
        self._measure = QPushButton(self.tr("Measure perplexity"), self)
        self._measure.setObjectName(f"measure_{letter}")
        self._measure.setToolTip(self.tr("Measure how well the model predicts an unseen text; takes about a minute"))
        self._measure.clicked.connect(self.measure_asked)
        self._measure.hide()

    def show_reply(self, reply: Reply, live_speed: float = 0.0) -> None:
        """Show the figures of `reply`; `live_speed` is the speed of an answer that is being generated."""
        figures = reply.figures
        speed = figures.tokens_per_second if figures is not None else live_speed
        first = figures.first_token_seconds if figures is not None else 0.0
        speed_name, first_name, memory_name, perplexity_name = (
            self.tr("tokens/s"), self.tr("to first token"), self.tr("memory"), self.tr("perplexity")
        )  # fmt: skip
        rows = [
            (speed_name, figure(speed) if speed else _DASH),
            (first_name, duration(first) if first else _DASH),
            (memory_name, human(reply.memory) if reply.memory else _DASH),
            (perplexity_name, figure(reply.perplexity) if reply.perplexity else _DASH),
        ]
        alone = self.tr("Decode speed after the first token.")
        if reply.shared:
            alone += " " + self.tr("The other model was generating on the same device, so both were slower.")
        tips = {
            speed_name: alone,
            first_name: self.tr("Time of the prefill, until the answer begins."),
            memory_name: self.tr("Memory of the weights and the cache."),
            perplexity_name: reply.perplexity_words
            or self.tr("Measures how well the model predicts an unseen text; lower is better."),
        }
        self._facts.show_facts(rows, tips)
        self._problem.set_text(reply.problem, "bad")
        self._facts.setVisible(figures is not None or not reply.problem)

    def show_measuring(self, offered: bool, share: float) -> None:
        """Show whether the perplexity can be measured, and the progress `share`; below 0 if inactive."""
        self._measure.setVisible(offered and not self._facts.isHidden())
        text = self.tr("Measure perplexity") if share < 0 else self.tr("Measuring, {} %").format(round(100 * share))
        self._measure.setText(text)
        self._measure.setAccessibleName(text if share < 0 else self.tr("Stop measuring perplexity"))

    def values(self) -> dict[str, str]:
        """Return the displayed figures by name."""
        return self._facts.values()

    def place(self, width: int) -> int:
        """Lay out for `width` pixels and return the height."""
        y = 0
        if not self._problem.isHidden():
            height = self._problem.heightForWidth(width)
            self._problem.setGeometry(0, y, width, height)
            y += height + 8
        if self._facts.isHidden():
            return max(0, y - 8)
        room, button = width, self._measure.sizeHint()
        beside = not self._measure.isHidden() and self._facts.sizeHint().width() + button.width() + 8 <= width
        if beside:
            room -= button.width() + 8
        height = self._facts.heightForWidth(room)
        self._facts.setGeometry(0, y, room, height)
        if beside:
            self._measure.setGeometry(width - button.width(), y, button.width(), button.height())
            height = max(height, button.height())
        elif not self._measure.isHidden():
            self._measure.setGeometry(0, y + height + 8, button.width(), button.height())
            height += 8 + button.height()
        return y + height

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Lay out again."""
        super().resizeEvent(event)
        self.place(self.width())
