"""A label of one line that gives way: where the room is short, its text ends in an ellipsis and the tooltip has all.

Knows nothing of what it says.
"""

from __future__ import annotations

from PySide6.QtCore import QSize
from PySide6.QtGui import QFont, QPainter, QPaintEvent, QPalette, QResizeEvent
from PySide6.QtWidgets import QLabel, QSizePolicy, QWidget

from app.theme import Theme


class ElidedLabel(QLabel):
    """Text that stays text, never asks for more than a few letters' width, and takes what it needs where there is room.

    Args:
        theme: needed only for a colour; role: a colour of the theme, "" for that of text.
        bold: in the heavier of the two weights; scale: against the size of other text.
    """

    def __init__(
        self,
        theme: Theme | None = None,
        text: str = "",
        parent: QWidget | None = None,
        *,
        role: str = "",
        bold: bool = False,
        scale: float = 1.0,
    ) -> None:
        super().__init__(text, parent)
        self._theme, self._role, self._exact = theme, role, ""
        self.setProperty("textFormat", "PlainText")  # by name: see app.theme
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        font = QFont(self.font())
        if bold:
            font.setWeight(QFont.Weight.DemiBold)
        if scale != 1.0:
            font.setPointSizeF(font.pointSizeF() * scale)
        self.setFont(font)
        if theme is not None:
            theme.changed.connect(self._tint)
            self._tint()

    def say(self, text: str, exact: str = "") -> None:
        """Show `text`; `exact` is what the tooltip tells."""
        if text != self.text():
            self.setText(text)
        self.set_exact(exact)

    def set_exact(self, exact: str) -> None:
        """The longer story, such as an exact figure: in the tooltip, and for a screen reader."""
        self._exact = exact
        self.setAccessibleDescription(exact)
        self._tell()

    def set_role(self, role: str) -> None:
        """Show the text in another colour of the theme, "" for that of text."""
        if role != self._role:
            self._role = role
            self._tint()

    def setText(self, text: str) -> None:
        super().setText(text)
        self._tell()

    def minimumSizeHint(self) -> QSize:
        metrics = self.fontMetrics()
        width = min(metrics.horizontalAdvance(self.text()) + 2, 6 * metrics.averageCharWidth())
        return QSize(width, super().minimumSizeHint().height())

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._tell()

    def paintEvent(self, event: QPaintEvent) -> None:
        if not self._is_cut():
            super().paintEvent(event)
            return
        from PySide6.QtCore import Qt  # late: see app.theme

        painter = QPainter(self)
        painter.setPen(self.palette().color(self.foregroundRole()))
        room = self.contentsRect()
        text = self.fontMetrics().elidedText(self.text(), Qt.TextElideMode.ElideRight, room.width())
        painter.drawText(room, int(self.alignment()), text)

    def _tell(self) -> None:
        self.setToolTip("\n".join(filter(None, (self.text() if self._is_cut() else "", self._exact))))

    def _is_cut(self) -> bool:
        return self.fontMetrics().horizontalAdvance(self.text()) > self.contentsRect().width()

    def _tint(self) -> None:
        palette = QPalette()
        if self._role and self._theme is not None:
            palette.setColor(QPalette.ColorRole.WindowText, self._theme.color(self._role))
        self.setPalette(palette)
