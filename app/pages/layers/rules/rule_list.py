"""The list of rules, with an editor in place of the edited rule.

Rows are moved by drag and drop and by Alt+Up and Alt+Down. Shows texts that it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, QRect, QSize, Qt, QTimer, Signal
from PySide6.QtGui import QFont, QFontMetrics, QKeyEvent, QPainter, QPalette
from PySide6.QtWidgets import (
    QAbstractItemView,
    QListWidget,
    QListWidgetItem,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QWidget,
)

if TYPE_CHECKING:
    from app.theme import Theme

_ROW: Final = Qt.ItemDataRole.UserRole
_PAD: Final = 6
_BAR: Final = 4

Index = QModelIndex | QPersistentModelIndex


@dataclass(frozen=True)
class RuleRow:
    """The texts of a row: pattern, settings, effect ("" if not known yet), and whether it has no effect."""

    match: str
    gives: str
    does: str
    idle: bool
    bits: int | None


class RuleList(QListWidget):
    """The list of rules.

    Signals:
        moved(int, int): the old and the new position of a rule.
        edit_wanted(int), remove_wanted(int): the position of the rule.
    """

    moved = Signal(int, int)
    edit_wanted = Signal(int)
    remove_wanted = Signal(int)

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("rule_list")
        self.setAccessibleName(self.tr("Rules; the last one that matches a layer is used"))
        self.setItemDelegate(_RowDelegate(theme, self))
        self.setDragDropMode(QAbstractItemView.DragDropMode.InternalMove)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setTabKeyNavigation(False)
        self.setToolTip(self.tr("Enter edits, Delete removes, Alt+Up and Alt+Down or the mouse move a rule."))
        self._editor: QWidget | None = None
        self._added = False
        self.model().rowsMoved.connect(self._rows_moved)
        self.itemDoubleClicked.connect(lambda item: self.edit_wanted.emit(self.row(item)))
        theme.changed.connect(self.viewport().update)

    @property
    def editor(self) -> QWidget | None:
        """The current editor; None if no rule is edited."""
        return self._editor

    def show_rows(self, rows: Sequence[RuleRow]) -> None:
        """Show these rows and keep the current one. An editor is closed unless only texts changed."""
        items = [self.item(place) for place in range(self.count())]
        if [item.data(_ROW).match for item in items if item.data(_ROW)] != [row.match for row in rows]:
            current = self.currentRow()
            self.end_edit()
            self.clear()
            for _row in rows:
                self.addItem(QListWidgetItem())
            if rows:
                self.setCurrentRow(min(max(current, 0), len(rows) - 1))
        for place, row in enumerate(rows):
            item = self.item(place)
            item.setData(_ROW, row)
            heard = self.tr("Rule {0}: {1} sets {2}. {3}").format(place + 1, row.match, row.gives, row.does)
            item.setData(Qt.ItemDataRole.AccessibleTextRole, heard)
            item.setToolTip(f"{row.match}\n{row.gives}\n{row.does}".strip())

    def begin_edit(self, place: int, editor: QWidget) -> None:
        """Show `editor` in place of a rule, or after the last for a new one."""
        self.end_edit()
        self._added = place >= self.count()
        if self._added:
            self.addItem(QListWidgetItem())
        item = self.item(place)
        item.setSizeHint(editor.sizeHint())
        self.setItemWidget(item, editor)
        self._editor = editor
        self.setDragEnabled(False)
        self.setCurrentItem(item)
        self.scrollToItem(item)

    def end_edit(self) -> None:
        """Close the editor."""
        if self._editor is None:
            return
        self._editor = None
        self.setDragEnabled(True)
        place = next((n for n in range(self.count()) if self.itemWidget(self.item(n)) is not None), -1)
        if place < 0:
            return
        item = self.item(place)
        self.removeItemWidget(item)
        item.setData(Qt.ItemDataRole.SizeHintRole, None)
        if self._added:
            self.takeItem(place)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Edit, remove or move the current rule; pass letters and digits on to the page."""
        place, alone = self.currentRow(), event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier
        if place < 0 or self._editor is not None:
            super().keyPressEvent(event)
        elif event.modifiers() & Qt.KeyboardModifier.AltModifier and event.key() in (Qt.Key.Key_Up, Qt.Key.Key_Down):
            to = place + (-1 if event.key() == Qt.Key.Key_Up else 1)
            if 0 <= to < self.count():
                self.setCurrentRow(to)
                self.moved.emit(place, to)
        elif event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_F2):
            self.edit_wanted.emit(place)
        elif event.key() in (Qt.Key.Key_Delete, Qt.Key.Key_Backspace):
            self.remove_wanted.emit(place)
        elif event.text().strip() and not alone:
            event.ignore()
        else:
            super().keyPressEvent(event)

    def _rows_moved(self, _parent: QModelIndex, start: int, _end: int, _to: QModelIndex, row: int) -> None:
        to = row - 1 if row > start else row
        # Deferred, because the receiver refills the list, which is still handling the drop.
        QTimer.singleShot(0, self, lambda: self.moved.emit(start, to))


class _RowDelegate(QStyledItemDelegate):
    """A delegate that paints pattern, settings and effect of a rule in two lines, and the color of its bits."""

    def __init__(self, theme: Theme, parent: QWidget) -> None:
        super().__init__(parent)
        self._theme = theme

    def sizeHint(self, option: QStyleOptionViewItem, index: Index) -> QSize:
        """Return the size of two lines, or of the editor."""
        wanted = index.data(Qt.ItemDataRole.SizeHintRole)
        return wanted if isinstance(wanted, QSize) else QSize(80, 2 * option.fontMetrics.height() + 2 * _PAD)

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        """Paint one row."""
        row = index.data(_ROW)
        self.initStyleOption(option, index)
        option.text = ""
        style = option.widget.style()
        style.drawControl(QStyle.ControlElement.CE_ItemViewItem, option, painter, option.widget)
        if not isinstance(row, RuleRow):
            return
        chosen = bool(option.state & QStyle.StateFlag.State_Selected)
        text = option.palette.color(QPalette.ColorRole.HighlightedText if chosen else QPalette.ColorRole.Text)
        soft = text if chosen else self._theme.color("warning" if row.idle else "muted")
        box = option.rect.adjusted(_BAR + 2 * _PAD, _PAD, -_PAD, -_PAD)
        painter.save()
        if row.bits is not None:
            bar = QRect(option.rect.left() + _PAD, box.top() + 2, _BAR, box.height() - 4)
            painter.fillRect(bar, self._theme.bits_color(row.bits))
        upper = QRect(box.left(), box.top(), box.width(), box.height() // 2)
        lower = QRect(box.left(), upper.bottom() + 1, box.width(), box.height() // 2)
        heavy = QFont(option.font)
        heavy.setWeight(QFont.Weight.DemiBold)
        gives_width = min(QFontMetrics(heavy).horizontalAdvance(row.gives) + 2, box.width() // 2)
        painter.setPen(text)
        self._line(painter, upper.adjusted(0, 0, -gives_width - _PAD, 0), row.match, option.font, right=False)
        self._line(painter, upper.adjusted(box.width() - gives_width, 0, 0, 0), row.gives, heavy, right=True)
        painter.setPen(soft)
        self._line(painter, lower, row.does, option.font, right=False)
        painter.restore()

    def _line(self, painter: QPainter, box: QRect, text: str, font: QFont, *, right: bool) -> None:
        painter.setFont(font)
        side = Qt.AlignmentFlag.AlignRight if right else Qt.AlignmentFlag.AlignLeft
        mode = Qt.TextElideMode.ElideRight
        cut = QFontMetrics(font).elidedText(text, mode, box.width())
        painter.drawText(box, side | Qt.AlignmentFlag.AlignVCenter, cut)
