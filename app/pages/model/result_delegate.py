"""Painting of the rows of the model list: a name with badges above a muted line, or a heading."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QModelIndex, QObject, QPersistentModelIndex, QRect, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFont, QFontMetrics, QPainter, QPalette
from PySide6.QtWidgets import QStyle, QStyledItemDelegate, QStyleOptionViewItem

from app.pages.model.results_table import ROW, ResultRow

if TYPE_CHECKING:
    from app.theme import Theme

_MARGIN = 8
_GAP = 4
_BADGE_PADDING = 6
_Index = QModelIndex | QPersistentModelIndex


class ResultDelegate(QStyledItemDelegate):
    """A delegate for the rows of `SearchResults`."""

    def __init__(self, theme: Theme, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._theme = theme

    def sizeHint(self, option: QStyleOptionViewItem, index: _Index) -> QSize:
        height = QFontMetrics(option.font).height()
        row = index.data(ROW)
        lines = 1 if row is None or not row.details else 2
        top = _MARGIN if row is None or row.name else 2 * _MARGIN
        return QSize(0, lines * height + (lines - 1) * 2 + top + (_MARGIN if lines > 1 or row.name else _GAP))

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: _Index) -> None:
        row = index.data(ROW)
        if row is None:
            return
        painter.save()
        painter.setLayoutDirection(
            Qt.LayoutDirection.LayoutDirectionAuto
        )  # of the text; the position follows the layout direction of the window
        if row.name:
            self._paint_model(painter, option, row)
        else:
            self._paint_heading(painter, option, row)
        painter.restore()

    def _paint_heading(self, painter: QPainter, option: QStyleOptionViewItem, row: ResultRow) -> None:
        painter.setFont(_heavier(option.font))
        painter.setPen(self._theme.color("muted"))
        area = option.rect.adjusted(_MARGIN, 0, -_MARGIN, -_GAP)
        painter.drawText(area, _beside(option, Qt.AlignmentFlag.AlignBottom), _cut(painter, row.title, area.width()))

    def _paint_model(self, painter: QPainter, option: QStyleOptionViewItem, row: ResultRow) -> None:
        # The style draws the background with selection, hover and focus ring.
        ground = QStyleOptionViewItem(option)
        ground.text = ""
        option.widget.style().drawControl(QStyle.ControlElement.CE_ItemViewItem, ground, painter, option.widget)
        selected = bool(option.state & QStyle.StateFlag.State_Selected)
        active = bool(option.state & QStyle.StateFlag.State_Active)
        group = QPalette.ColorGroup.Active if active else QPalette.ColorGroup.Inactive
        text = option.palette.color(group, QPalette.ColorRole.HighlightedText if selected else QPalette.ColorRole.Text)
        muted = text if selected else self._theme.color("muted")
        area = option.rect.adjusted(_MARGIN, _MARGIN, -_MARGIN, -_MARGIN)
        line = QFontMetrics(option.font).height()
        first = QRect(area.left(), area.top(), area.width(), line)
        used = self._paint_badges(painter, option, first, row.badges, text if selected else None)
        painter.setFont(_heavier(option.font))
        painter.setPen(text)
        name = _mirrored(option, first.adjusted(0, 0, -used, 0), first)
        painter.drawText(name, _beside(option), _cut(painter, row.title, name.width()))
        if row.details:
            painter.setFont(option.font)
            painter.setPen(muted)
            second = first.translated(0, line + 2)
            painter.drawText(second, _beside(option), _cut(painter, row.details, second.width()))

    def _paint_badges(
        self,
        painter: QPainter,
        option: QStyleOptionViewItem,
        line: QRect,
        badges: tuple[str, ...],
        color: QColor | None,
    ) -> int:
        """Paint the badges at the end of the line, the last one outermost; return their width."""
        font = QFont(option.font)
        font.setPointSizeF(font.pointSizeF() * 0.85)
        metrics = QFontMetrics(font)
        used = 0
        for word in reversed(badges):
            width = metrics.horizontalAdvance(word) + 2 * _BADGE_PADDING
            box = QRect(line.right() - used - width + 1, line.top(), width, line.height())
            painter.setFont(font)
            painter.setPen(color or self._theme.color("warning" if word in ("gated", "quantized") else "good"))
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            placed = _mirrored(option, box, line)
            painter.drawRoundedRect(QRectF(placed).adjusted(0.5, 0.5, -0.5, -0.5), 4, 4)
            painter.drawText(placed, Qt.AlignmentFlag.AlignCenter, word)
            used += width + _GAP
        return used + _GAP if used else 0


def _heavier(font: QFont) -> QFont:
    heavy = QFont(font)
    heavy.setWeight(QFont.Weight.DemiBold)
    return heavy


def _cut(painter: QPainter, text: str, width: int) -> str:
    return painter.fontMetrics().elidedText(text, Qt.TextElideMode.ElideRight, width)


def _mirrored(option: QStyleOptionViewItem, box: QRect, within: QRect) -> QRect:
    return QStyle.visualRect(option.direction, within, box)


def _beside(
    option: QStyleOptionViewItem, vertical: Qt.AlignmentFlag = Qt.AlignmentFlag.AlignVCenter
) -> Qt.AlignmentFlag:
    across = QStyle.visualAlignment(option.direction, Qt.AlignmentFlag.AlignLeft)
    return across | vertical | Qt.AlignmentFlag.AlignAbsolute
