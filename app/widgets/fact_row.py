"""Figures side by side, each above its name, in as many lines as needed."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QRect, QSize, Qt
from PySide6.QtGui import QFont, QResizeEvent
from PySide6.QtWidgets import QLabel, QSizePolicy, QVBoxLayout, QWidget

from app.theme import Theme
from app.widgets.tinted_label import TintedLabel

_GAP, _LINES = 28, 12


class FactRow(QWidget):
    """A row of figures with stable order and positions."""

    def __init__(self, theme: Theme, *, large: bool = False, parent: QWidget | None = None) -> None:
        """Create the row; `large` sets a larger font for the most important figures."""
        super().__init__(parent)
        self._theme, self._large = theme, large
        self._cells: dict[str, _Cell] = {}
        policy = QSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        policy.setHeightForWidth(True)
        self.setSizePolicy(policy)

    def show_facts(self, facts: Sequence[tuple[str, str]], tips: dict[str, str] | None = None) -> None:
        """Show pairs of name and value; `tips` has tooltips by name."""
        names = [name for name, _ in facts]
        if names != list(self._cells):
            for cell in self._cells.values():
                cell.hide()
                cell.deleteLater()
            self._cells = {name: _Cell(self._theme, name, self._large, self) for name in names}
            for cell in self._cells.values():
                cell.show()
        for name, value in facts:
            self._cells[name].set_text(value, (tips or {}).get(name, ""))
        self._place()
        self.updateGeometry()

    def values(self) -> dict[str, str]:
        """Return the shown values by name."""
        return {name: cell.value.text() for name, cell in self._cells.items()}

    def sizeHint(self) -> QSize:
        width = sum(cell.sizeHint().width() + _GAP for cell in self._cells.values())
        return QSize(width, self.heightForWidth(max(width, self.width())))

    def minimumSizeHint(self) -> QSize:
        widest = max((cell.sizeHint().width() for cell in self._cells.values()), default=0)
        return QSize(widest, self.heightForWidth(max(widest, self.width())))

    def heightForWidth(self, width: int) -> int:
        return max((place.bottom() + 1 for place in self._places(width)), default=0)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._place()
        if event.oldSize().width() != event.size().width():
            self.updateGeometry()

    def _place(self) -> None:
        right = self.layoutDirection() == Qt.LayoutDirection.RightToLeft
        for cell, place in zip(self._cells.values(), self._places(self.width()), strict=True):
            if right:
                place.moveLeft(self.width() - place.right() - 1)
            cell.setGeometry(place)

    def _places(self, width: int) -> list[QRect]:
        places: list[QRect] = []
        x = y = tallest = 0
        for cell in self._cells.values():
            size = cell.sizeHint()
            if x and x + size.width() > width:
                x, y, tallest = 0, y + tallest + _LINES, 0
            places.append(QRect(x, y, size.width(), size.height()))
            x, tallest = x + size.width() + _GAP, max(tallest, size.height())
        return places


class _Cell(QWidget):
    def __init__(self, theme: Theme, name: str, large: bool, parent: QWidget) -> None:
        super().__init__(parent)
        self.value = QLabel(self)
        self.value.setTextFormat(Qt.TextFormat.PlainText)
        self.value.setAccessibleName(name)
        font = QFont(self.value.font())
        font.setFeature(QFont.Tag("tnum"), 1)
        if large:
            font.setPointSizeF(font.pointSizeF() * 1.35)
            font.setWeight(QFont.Weight.DemiBold)
        self.value.setFont(font)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(1)
        column.addWidget(self.value)
        column.addWidget(TintedLabel(theme, name, role="muted", parent=self))
        self._widest = 0

    def set_text(self, text: str, tip: str) -> None:
        self.value.setText(text)
        self.setToolTip(tip)
        self.value.setAccessibleDescription(text)

    def sizeHint(self) -> QSize:
        """Return a size that never shrinks, so that changing figures do not move the others."""
        hint = super().sizeHint()
        self._widest = max(self._widest, hint.width())
        return QSize(self._widest, hint.height())
