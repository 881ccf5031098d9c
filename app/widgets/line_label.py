"""One line of text in a colour of the theme; where the room is short, cut in its middle and told whole by its tooltip.

Text and nothing but text: a stranger's `<img>` stays five letters, in the tooltip too.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from PySide6.QtCore import QEvent, QSize, Qt
from PySide6.QtGui import QFont, QPainter, QPaintEvent, QPalette, QResizeEvent
from PySide6.QtWidgets import QLabel, QStyle, QWidget

if TYPE_CHECKING:
    from app.theme import Theme


class LineLabel(QLabel):
    """A name, a value or a heading.

    Args:
        role: a colour of the theme, "" for that of text.
        scale: size against the font of the window; bold: in the heavier of the two weights.
    """

    def __init__(
        self,
        theme: Theme,
        text: str = "",
        *,
        role: str = "",
        scale: float = 1.0,
        bold: bool = False,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._theme, self._role, self._exact = theme, role, ""
        self.setTextFormat(Qt.TextFormat.PlainText)
        if scale != 1.0 or bold:
            font = QFont(self.font())
            font.setPointSizeF(font.pointSizeF() * scale)
            font.setWeight(QFont.Weight.DemiBold if bold else QFont.Weight.Normal)
            self.setFont(font)
        theme.changed.connect(self._recolour)
        self._recolour()
        self.setText(text)

    @property
    def role(self) -> str:
        """The role of its colour now."""
        return self._role

    def set_role(self, role: str) -> None:
        """Show the text in another colour of the theme, "" for that of text."""
        if role != self._role:
            self._role = role
            self._recolour()

    def set_exact(self, text: str) -> None:
        """What the tooltip says, besides a text that was cut."""
        self._exact = text
        self._retip()

    def setText(self, text: str) -> None:
        super().setText(text)
        self._retip()

    def minimumSizeHint(self) -> QSize:
        hint = super().minimumSizeHint()
        return QSize(min(hint.width(), self.fontMetrics().averageCharWidth() * 6), hint.height())

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._retip()

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() == QEvent.Type.FontChange:
            self._retip()

    def paintEvent(self, _event: QPaintEvent) -> None:
        painter = QPainter(self)
        group = QPalette.ColorGroup.Normal if self.isEnabled() else QPalette.ColorGroup.Disabled
        painter.setPen(self.palette().color(group, self.foregroundRole()))
        # The place follows the window, the order of the words the text: an English line stays in order in a window
        # that runs from right to left.
        place = QStyle.visualAlignment(self.layoutDirection(), self.alignment()) | Qt.AlignmentFlag.AlignAbsolute
        painter.setLayoutDirection(Qt.LayoutDirection.LayoutDirectionAuto)
        painter.drawText(self.contentsRect(), place, self._shown())
        painter.end()

    def _shown(self) -> str:
        line = self.text().replace("\n", " ")
        return self.fontMetrics().elidedText(line, Qt.TextElideMode.ElideMiddle, self.contentsRect().width())

    def _retip(self) -> None:
        cut = self._shown() != self.text()
        tip = "\n".join(part for part in (self.text() if cut else "", self._exact) if part)
        # Escaped inside a tag, as Qt would take text that looks like markup for markup.
        self.setToolTip(f"<p style='white-space:pre-line'>{html.escape(tip)}</p>" if tip else "")

    def _recolour(self) -> None:
        palette = QPalette()
        if self._role:
            palette.setColor(QPalette.ColorRole.WindowText, self._theme.color(self._role))
        self.setPalette(palette)
