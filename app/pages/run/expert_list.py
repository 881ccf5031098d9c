"""The experts of a mixture in a report: the calibration tokens that each one got, and those that were not tuned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFrame, QHeaderView, QTreeWidget, QTreeWidgetItem, QWidget

from app.theme import Theme
from app.widgets.panel import Panel
from app.widgets.tinted_label import TintedLabel
from core.report.experts import MixtureTokens, mixtures

_ROWS: Final = (3, 12)
"""Minimum and maximum number of rows that are visible without scrolling in the list."""
_MIXTURE: Final = int(Qt.ItemDataRole.UserRole)


class ExpertList(Panel):
    """A row for each mixture, which is one block of most models; expanded, a row for each of its experts."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(theme, parent)
        self.setObjectName("report_experts")
        title = TintedLabel(theme, self.tr("&Experts"), bold=True)
        self.tree = QTreeWidget()
        self.tree.setObjectName("experts")
        self.tree.setAccessibleName(self.tr("Calibration tokens of the experts"))
        self.tree.setHeaderLabels([self.tr("Block"), self.tr("Calibration tokens"), self.tr("Not tuned")])
        self.tree.setFrameShape(QFrame.Shape.NoFrame)
        self.tree.setUniformRowHeights(True)
        self.tree.setTabKeyNavigation(False)
        self.tree.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.tree.itemExpanded.connect(self._expanded)
        self.tree.itemCollapsed.connect(self._fit)
        header = self.tree.header()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(1, QHeaderView.ResizeMode.Stretch)
        self.tree.headerItem().setTextAlignment(2, Qt.AlignmentFlag.AlignRight)
        title.setBuddy(self.tree)
        self.column.addWidget(title)
        self.column.addWidget(self.tree)

    def show_experts(self, report: Mapping[str, Any]) -> None:
        """Show the experts of a report; hide the list for a model without experts."""
        found = mixtures(report)
        self.tree.clear()
        self.setVisible(bool(found))
        for mixture in found:
            few, total = len(mixture.not_tuned), len(mixture.tokens)
            row = self._row(_place(mixture.name), mixture.spread, f"{few:,} of {total:,}")
            row.setData(0, _MIXTURE, mixture)
            row.setToolTip(0, mixture.name)
            row.setToolTip(1, self.tr("Tokens of the calibration text for each expert: smallest, largest and median"))
            if few:
                numbers = ", ".join(map(str, mixture.not_tuned))
                row.setToolTip(2, self.tr("Rounded without tuning, for too few tokens: experts {0}").format(numbers))
            row.setChildIndicatorPolicy(QTreeWidgetItem.ChildIndicatorPolicy.ShowIndicator)
            self.tree.addTopLevelItem(row)
        self._fit()

    def _fit(self) -> None:
        """Set the height of the list to that of its visible rows, within limits."""
        items = [item for place in range(self.tree.topLevelItemCount()) if (item := self.tree.topLevelItem(place))]
        count = len(items) + sum(item.childCount() for item in items if item.isExpanded())
        rows = min(max(count, _ROWS[0]), _ROWS[1])
        line = self.tree.sizeHintForRow(0) if items else 0
        self.tree.setFixedHeight(self.tree.header().sizeHint().height() + rows * line + 4)

    def _expanded(self, row: QTreeWidgetItem) -> None:
        """Make room for the experts of a mixture, which are added when it is expanded for the first time."""
        mixture = row.data(0, _MIXTURE)
        if isinstance(mixture, MixtureTokens) and not row.childCount():
            self._fill(row, mixture)
        self._fit()

    def _fill(self, row: QTreeWidgetItem, mixture: MixtureTokens) -> None:
        few = set(mixture.not_tuned)
        expert, rounded = self.tr("Expert {0}"), self.tr("rounded")
        row.addChildren(
            [
                self._row(expert.format(number), f"{count:,}", rounded if number in few else "")
                for number, count in enumerate(mixture.tokens)
            ]
        )

    def _row(self, name: str, tokens: str, not_tuned: str) -> QTreeWidgetItem:
        row = QTreeWidgetItem([name, tokens, not_tuned])
        row.setTextAlignment(2, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        return row


def _place(name: str) -> str:
    """Return the number of the block in the name of a mixture as other lists show it, from 1; else the name."""
    number = next((part for part in name.split(".") if part.isdecimal()), "")
    return str(int(number) + 1) if number else name
