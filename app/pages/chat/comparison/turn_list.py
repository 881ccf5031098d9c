"""The turns of a comparison in two columns that scroll together.

Follows the end while the user is at the end.
"""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QTimer, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QWidget

from app.pages.chat.comparison.turn_view import GAP, TurnView
from app.pages.chat.comparison.turns import Turn
from app.pages.chat.following_scroll import MARGIN, FollowingScroll
from app.pages.chat.message_view import COLUMNS
from app.pages.chat.pictures.library import PictureLibrary
from app.theme import Theme

_APART = 24


class TurnList(FollowingScroll):
    """All turns.

    Signals:
        measure_asked(int): the perplexity measurement of this side should start or stop.
    """

    measure_asked = Signal(int)

    def __init__(self, theme: Theme, pictures: PictureLibrary, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme, self._pictures = theme, pictures
        self._turns: list[TurnView] = []
        self._first = self._width = 0
        self.setAccessibleName(self.tr("Comparison"))
        self.setObjectName("comparison_board")
        self._settle = QTimer(self, singleShot=True, interval=0)
        self._settle.timeout.connect(self.lay_out)
        theme.changed.connect(self._update_style)

    @property
    def turns(self) -> list[TurnView]:
        """The turns from first to last."""
        return list(self._turns)

    def add(self, turn: Turn) -> TurnView:
        """Add a turn at the end and follow it."""
        view = TurnView(self._theme, self._pictures, turn, self.ground)
        self._turns.append(view)
        view.resized.connect(lambda: self._note_size(view))
        view.measure_asked.connect(self.measure_asked)
        view.show()
        self.to_end()
        self._note_size(view)
        self.lay_out()
        return view

    def show_turns(self, turns: Sequence[Turn]) -> None:
        """Replace all turns."""
        for view in self._turns:
            view.hide()
            view.deleteLater()
        self._turns, self._first = [], 0
        for turn in turns:
            self.add(turn)
        self.lay_out()

    def lay_out(self) -> None:
        """Place every turn; if the width is unchanged, only from the first that changed."""
        room = self.room
        width = min(room - 2 * MARGIN, most_width(self))
        first = self._first if room == self._width else 0
        left, y = (room - width) // 2, MARGIN
        if first:
            y = self._turns[first - 1].geometry().bottom() + 1 + _APART
        for view in self._turns[first:]:
            height = view.place(width)
            view.setGeometry(left, y, width, height)
            y += height + _APART
        self.ground.resize(room, y - _APART + MARGIN)
        self._first, self._width = len(self._turns), room
        self._settle.stop()  # the layout reports new heights, which are applied already

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Lay out for the new width."""
        super().resizeEvent(event)
        if event.size().width() != event.oldSize().width():
            self.lay_out()

    def _note_size(self, view: TurnView) -> None:
        if view in self._turns:
            self._first = min(self._first, self._turns.index(view))
            self._settle.start()

    def _update_style(self) -> None:
        for view in self._turns:
            view.update_style()


def most_width(widget: QWidget) -> int:
    """Return the maximum width of both columns."""
    return 2 * (widget.fontMetrics().averageCharWidth() * COLUMNS + 24) + GAP
