"""Disk space, memory and time of a run against what is free now, as bars and text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QGridLayout, QVBoxLayout, QWidget

from app.pages.model.cost_bar import CostBar
from app.shared.resource_needs import FITS, SHORT, TIGHT, UNKNOWN, FreeBytes, ResourceNeed, advice, needs, verdict_text
from app.widgets.elided_label import ElidedLabel
from app.widgets.note import Note
from core.estimation.costs import BUSY, Costs
from core.wording import time_range

if TYPE_CHECKING:
    from app.theme import Theme

_COLORS = {FITS: "good", TIGHT: "warning", SHORT: "bad", UNKNOWN: "accent"}


class CostBars(QWidget):
    """A row with a bar for each of disk, memory and device memory, a row for time, and a sentence of advice."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._rows = {key: _Row(theme, key) for key in ("disk", "ram", "device")}
        self._time_title = ElidedLabel(theme, self.tr("Time"))
        self._time = ElidedLabel(theme)
        self._time.setObjectName("time")
        self._advice = Note(theme, parent=self)
        self._advice.setObjectName("advice")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(8)
        for row in self._rows.values():
            column.addWidget(row)
        line = QGridLayout()
        line.setHorizontalSpacing(8)
        line.setColumnStretch(1, 1)
        line.addWidget(self._time_title, 0, 0)
        line.addWidget(self._time, 0, 1, Qt.AlignmentFlag.AlignRight)
        column.addLayout(line)
        column.addWidget(self._advice)

    def show_costs(
        self, costs: Costs | None, free: FreeBytes, *, download: float = 0.0, measuring: bool = True
    ) -> None:
        """Show the costs of a run that first fetches `download` bytes; None clears the bars.

        Args:
            measuring: if the costs have no time, whether a measurement is in progress.
        """
        self.setVisible(costs is not None)
        if costs is None:
            return
        found = needs(costs, download, free)
        shown = {need.key: need for need in found}
        for key, row in self._rows.items():
            row.setVisible(key in shown)
            if key in shown:
                row.show_need(shown[key])
        if costs.seconds is not None:
            words = time_range(costs.seconds.low, costs.seconds.high)
            busy = self.tr("{} (CPU is {} % busy)").format(words, f"{100 * costs.load:.0f}")
            self._time.setText(busy if costs.load > BUSY else words)
        else:
            self._time.setText(self.tr("Measuring this machine") if measuring else self.tr("Unknown"))
        self._time.set_role("" if costs.seconds is not None else "muted")
        short = any(need.verdict == SHORT for need in found)
        self._advice.set_text(advice(found), "bad" if short else "warning")


class _Row(QWidget):
    """Title, amounts and verdict above a bar."""

    def __init__(self, theme: Theme, key: str) -> None:
        super().__init__()
        self.setObjectName(key)
        self._title = ElidedLabel(theme)
        self._amounts = ElidedLabel(theme, role="muted")
        self._amounts.setObjectName(f"{key}_amounts")
        self._verdict = ElidedLabel(theme, bold=True)
        self._verdict.setObjectName(f"{key}_verdict")
        self._bar = CostBar(theme)
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(8)
        grid.setVerticalSpacing(4)
        grid.setColumnStretch(1, 1)
        grid.addWidget(self._title, 0, 0)
        grid.addWidget(self._amounts, 0, 1, Qt.AlignmentFlag.AlignRight)
        grid.addWidget(self._verdict, 0, 2)
        grid.addWidget(self._bar, 1, 0, 1, 3)

    def show_need(self, need: ResourceNeed) -> None:
        """Show a need."""
        word = verdict_text(need.verdict)
        self._title.setText(need.title)
        self._amounts.setText(need.amounts)
        self._amounts.set_exact(self._exact(need))
        self._verdict.setText(word)
        self._verdict.set_role(_COLORS[need.verdict])
        self._bar.show_need(need.low, need.high, need.free, _COLORS[need.verdict])
        self._bar.setAccessibleName(", ".join(part for part in (f"{need.title}: {need.amounts}", word) if part))

    def _exact(self, need: ResourceNeed) -> str:
        free = self.tr("unknown") if need.free is None else f"{need.free:,.0f}"
        return self.tr("{low} to {high} bytes, {free} free").format(
            low=f"{need.low:,.0f}", high=f"{need.high:,.0f}", free=free
        )
