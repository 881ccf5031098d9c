"""The list of saved conversations: item model and painting of names, with model and day below."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from PySide6.QtCore import QAbstractListModel, QModelIndex, QPersistentModelIndex, QRect, QSize, Qt, Signal
from PySide6.QtGui import QPainter, QPalette
from PySide6.QtWidgets import QStyle, QStyledItemDelegate, QStyleOptionViewItem, QWidget

from app.pages.chat.conversations.files import ConversationSummary
from app.theme import Theme, mixed
from core import wording

Index = QModelIndex | QPersistentModelIndex
_PAD: Final = 8
_RADIUS: Final = 6


class ConversationTable(QAbstractListModel):
    """Summaries as rows.

    Signals:
        renamed(str, str): the user changed the title of the conversation of this id.
    """

    renamed = Signal(str, str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rows: list[ConversationSummary] = []

    @property
    def rows(self) -> list[ConversationSummary]:
        """The rows."""
        return self._rows

    def show(self, rows: Sequence[ConversationSummary]) -> None:
        """Replace the rows."""
        if list(rows) != self._rows:
            self.beginResetModel()
            self._rows = list(rows)
            self.endResetModel()

    def place(self, identity: str) -> QModelIndex:
        """Return the index of a conversation; invalid if it is not listed."""
        place = next((row for row, summary in enumerate(self._rows) if summary.id == identity), -1)
        return self.index(place) if place >= 0 else QModelIndex()

    def rowCount(self, parent: Index | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self._rows)

    def flags(self, index: Index) -> Qt.ItemFlag:
        return super().flags(index) | Qt.ItemFlag.ItemIsEditable

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not index.isValid() or index.row() >= len(self._rows):
            return None
        summary = self._rows[index.row()]
        if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.EditRole):
            return summary.name
        if role == Qt.ItemDataRole.UserRole:
            return detail_of(summary, datetime.now())  # noqa: DTZ005 - the user's own time
        if role == Qt.ItemDataRole.AccessibleTextRole:
            return f"{summary.name}, {self.data(index, Qt.ItemDataRole.UserRole)}"
        return None

    def setData(self, index: Index, value: Any, role: int = Qt.ItemDataRole.EditRole) -> bool:
        if role != Qt.ItemDataRole.EditRole or not index.isValid():
            return False
        summary, title = self._rows[index.row()], " ".join(str(value).split())
        if title != summary.name:
            self.renamed.emit(summary.id, title)
        return True


class ConversationDelegate(QStyledItemDelegate):
    """A delegate that paints two lines: the name, and in a muted color the model and the day."""

    def __init__(self, theme: Theme, parent: QWidget) -> None:
        super().__init__(parent)
        self._theme = theme

    def sizeHint(self, option: QStyleOptionViewItem, _index: Index) -> QSize:
        return QSize(80, 2 * option.fontMetrics.height() + 2 * _PAD)

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        self.initStyleOption(option, index)
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        box = option.rect.toRectF().adjusted(1, 1, -1, -1)
        accent = self._theme.color("accent")
        chosen = bool(option.state & QStyle.StateFlag.State_Selected)
        over = bool(option.state & QStyle.StateFlag.State_MouseOver)
        if chosen or over:
            ground = option.palette.color(QPalette.ColorRole.Window)
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(mixed(ground, accent, 0.2 if chosen else 0.08))
            painter.drawRoundedRect(box, _RADIUS, _RADIUS)
        if option.state & QStyle.StateFlag.State_HasFocus and option.state & QStyle.StateFlag.State_Active:
            painter.setPen(accent)
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRoundedRect(box, _RADIUS, _RADIUS)
        room = option.rect.adjusted(_PAD, _PAD, -_PAD, -_PAD)
        height = option.fontMetrics.height()
        upper = QRect(room.left(), room.top(), room.width(), height)
        painter.setPen(option.palette.color(QPalette.ColorRole.WindowText))
        _draw(painter, option, upper, index.data(Qt.ItemDataRole.DisplayRole))
        painter.setPen(self._theme.color("muted"))
        _draw(painter, option, upper.translated(0, height), index.data(Qt.ItemDataRole.UserRole))
        painter.restore()

    def updateEditorGeometry(self, editor: QWidget, option: QStyleOptionViewItem, _index: Index) -> None:
        """Let the editor cover the whole row."""
        editor.setGeometry(option.rect.adjusted(2, 2, -2, -2))


def detail_of(summary: ConversationSummary, now: datetime) -> str:
    """Return the second line of a row: `tiny-4bit, today 14:05`."""
    when = datetime.fromtimestamp(summary.updated)  # noqa: DTZ006 - the user's own time
    if when.date() == now.date():
        day = f"today {when:%H:%M}"
    elif when.date() == (now - timedelta(days=1)).date():
        day = f"yesterday {when:%H:%M}"
    else:
        day = wording.day(when) if when.year == now.year else f"{wording.day(when)} {when.year}"
    return f"{summary.model}, {day}" if summary.model else day


def _draw(painter: QPainter, option: QStyleOptionViewItem, room: QRect, text: str) -> None:
    shown = option.fontMetrics.elidedText(text, Qt.TextElideMode.ElideRight, room.width())
    where = QStyle.visualAlignment(option.direction, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
    painter.drawText(room, where, shown)
