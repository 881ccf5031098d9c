"""The blocks of a run, one painted row each: number, bars of the loss with plain rounding and as quantized, figures.

The block whose curve is shown is selected with the mouse or the arrow keys; without a selection, the list follows the
block being tuned. Depends on the rows of `BlockTable` only.
"""

from __future__ import annotations

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, QRect, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QFont, QKeyEvent, QPainter, QPalette, QPen, QResizeEvent
from PySide6.QtWidgets import QFrame, QListView, QSizePolicy, QStyle, QStyledItemDelegate, QStyleOptionViewItem, QWidget

from app.pages.run.block_table import ROW, BlockRow, BlockTable
from app.theme import Theme, mixed

_PAD = 8
_BAR = 10
_ARROW = " \N{RIGHTWARDS ARROW} "
_WIDEST_FIGURE = "0.0000"
_FIGURES = f"{_WIDEST_FIGURE}{_ARROW}{_WIDEST_FIGURE}"
_NARROWEST_BAR = 48
_SHORTEST_BAR = 16
"""Width of the bars, in pixels, in a list that is narrower than its size hint: the figures come first."""


class BlockList(QListView):
    """The list of blocks.

    Signals:
        picked: the user selected a block (its number from 0); -1 returns to the block being tuned.
    """

    picked = Signal(int)

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.table = BlockTable(self)
        self.setModel(self.table)
        self.setItemDelegate(_Painter(theme, self))
        self.setObjectName("block_list")
        self.setAccessibleName(self.tr("Blocks, with their loss with plain rounding and as quantized"))
        self.setUniformItemSizes(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setVerticalScrollMode(QListView.ScrollMode.ScrollPerPixel)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setTabKeyNavigation(False)
        self._follows = True
        self._quiet = False
        self._shown = -1
        self.clicked.connect(self._pick)
        self.selectionModel().currentChanged.connect(self._moved)
        theme.changed.connect(self.viewport().update)

    def follow(self) -> None:
        """Follow the block being tuned."""
        self._follows, self._shown = True, -1
        self.reveal()

    def reveal(self) -> None:
        """If the list follows, select the block being tuned and scroll to it."""
        current = self.table.current
        if not self._follows or current < 0 or current == self._shown:
            return
        self._shown = current
        self.mark(current)

    def mark(self, block: int) -> None:
        """Select a block without emitting a signal, and scroll to it."""
        self._quiet = True
        self.setCurrentIndex(self.table.index(block))
        self._quiet = False
        self.scrollTo(self.table.index(block), QListView.ScrollHint.EnsureVisible)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        if self.currentIndex().isValid():
            self.scrollTo(self.currentIndex(), QListView.ScrollHint.EnsureVisible)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Handle Esc, which returns to following; pass other keys to the list."""
        if event.key() == Qt.Key.Key_Escape and not self._follows:
            self.follow()
            self.picked.emit(-1)
            return
        super().keyPressEvent(event)

    def _moved(self, now: QModelIndex, _before: QModelIndex) -> None:
        if not self._quiet and now.isValid():
            self._pick(now)

    def _pick(self, index: QModelIndex) -> None:
        """Emit `picked`; selecting the block being tuned means following again."""
        row = index.data(ROW)
        if not isinstance(row, BlockRow):
            return
        self._follows = row.block == self.table.current
        self._shown = row.block if self._follows else -1
        self.picked.emit(-1 if self._follows else row.block)


class _Painter(QStyledItemDelegate):
    """Delegate that paints a row; there is no widget per block."""

    def __init__(self, theme: Theme, parent: QWidget) -> None:
        super().__init__(parent)
        self._theme = theme

    def sizeHint(self, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex) -> QSize:
        metrics = option.fontMetrics
        width = metrics.horizontalAdvance("000" + _FIGURES) + _NARROWEST_BAR + 5 * _PAD
        return QSize(width, max(24, metrics.height() + 6))

    def paint(
        self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        row = index.data(ROW)
        if not isinstance(row, BlockRow):
            return
        painter.save()
        palette, rect = option.palette, option.rect
        text = palette.color(QPalette.ColorRole.Text)
        if option.state & QStyle.StateFlag.State_Selected:
            painter.fillRect(rect, mixed(palette.color(QPalette.ColorRole.Base), self._theme.color("accent"), 0.16))
        if option.state & QStyle.StateFlag.State_HasFocus:
            painter.setPen(QPen(self._theme.color("accent"), 2))
            painter.drawRect(rect.adjusted(1, 1, -1, -1))
        font = QFont(option.font)
        font.setFeature(QFont.Tag("tnum"), 1)
        painter.setFont(font)
        right = option.direction == Qt.LayoutDirection.RightToLeft
        number, bar, figures = _parts(option, rect, right)
        waiting = row.figures is None and row.share is None
        painter.setPen(self._theme.color("muted") if waiting else text)
        painter.drawText(number, int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter), str(row.block + 1))
        self._write_figures(painter, figures, row.text, right)
        self._draw_bar(painter, bar, row, right)
        painter.restore()

    @staticmethod
    def _write_figures(painter: QPainter, area: QRect, text: str, right: bool) -> None:
        """Draw the figures with the arrows of all rows aligned; right-align other texts."""
        before, arrow, after = text.partition(_ARROW)
        if not arrow or right:
            side = Qt.AlignmentFlag.AlignLeft if right else Qt.AlignmentFlag.AlignRight
            painter.drawText(area, int(side | Qt.AlignmentFlag.AlignVCenter), text)
            return
        metrics = painter.fontMetrics()
        width = metrics.horizontalAdvance(arrow)
        left = area.right() + 1 - metrics.horizontalAdvance(_WIDEST_FIGURE) - width
        middle = int(Qt.AlignmentFlag.AlignVCenter)
        first = QRect(area.left() - _PAD, area.top(), left - area.left() + _PAD, area.height())
        painter.drawText(first, int(Qt.AlignmentFlag.AlignRight) | middle, before)
        painter.drawText(QRect(left, area.top(), width, area.height()), middle, arrow)
        last = QRect(left + width, area.top(), area.right() + 1 - left - width, area.height())
        painter.drawText(last, middle, after)

    def _draw_bar(self, painter: QPainter, area: QRect, row: BlockRow, right: bool) -> None:
        """Draw the loss of plain rounding in a pale tone, and of the result on top; for the current block, progress."""
        accent, line = self._theme.color("accent"), self._theme.color("line")
        if row.share is not None:
            self._fill(painter, area, 1.0, line, right)
            self._fill(painter, area, row.share, accent, right)
        elif row.figures is not None:
            pale = mixed(self._theme.color("surface"), accent, 0.35)
            self._fill(painter, area, row.before, pale, right)
            self._fill(painter, area, min(row.after, row.before) if row.before else row.after, accent, right)
        else:
            self._fill(painter, QRect(area.left(), area.center().y(), area.width(), 1), 1.0, line, right)

    @staticmethod
    def _fill(painter: QPainter, area: QRect, share: float, color: QColor, right: bool) -> None:
        width = area.width() * share
        left = area.right() + 1 - width if right else area.left()
        painter.fillRect(QRectF(left, area.top(), width, area.height()), color)


def _parts(option: QStyleOptionViewItem, rect: QRect, right: bool) -> tuple[QRect, QRect, QRect]:
    """Return the areas of number, bar and figures, mirrored for right-to-left layouts."""
    metrics = option.fontMetrics
    numbers, figures = metrics.horizontalAdvance("000"), metrics.horizontalAdvance(_FIGURES) + _PAD
    bar = max(_SHORTEST_BAR, rect.width() - numbers - figures - 4 * _PAD)
    starts = (rect.left() + _PAD, rect.left() + 2 * _PAD + numbers, rect.left() + 3 * _PAD + numbers + bar)
    places = [
        QRect(starts[0], rect.top(), numbers, rect.height()),
        QRect(starts[1], rect.center().y() - _BAR // 2 + 1, bar, _BAR),
        QRect(starts[2], rect.top(), figures, rect.height()),
    ]
    if right:
        for place in places:
            place.moveLeft(rect.left() + rect.right() - place.right())
    return places[0], places[1], places[2]
