"""A label of one line that elides its text if it is too long, with the whole text in the tooltip."""

from __future__ import annotations

import html

from PySide6.QtCore import QEvent, QSize
from PySide6.QtGui import QPainter, QPaintEvent, QResizeEvent
from PySide6.QtWidgets import QSizePolicy, QStyle, QWidget

from app.theme import Theme
from app.widgets.tinted_label import TintedLabel


class ElidedLabel(TintedLabel):
    """A label with a minimum width of a few characters.

    Args:
        theme, role, bold, scale: as for `TintedLabel`.
        middle: elide in the middle, for texts whose end matters, such as paths.
    """

    def __init__(
        self,
        theme: Theme | None = None,
        text: str = "",
        *,
        role: str = "",
        bold: bool = False,
        scale: float = 1.0,
        middle: bool = False,
        parent: QWidget | None = None,
    ) -> None:
        self._exact, self._middle = "", middle
        super().__init__(theme, "", role=role, bold=bold, scale=scale, parent=parent)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        self.setText(text)

    def set_text(self, text: str, exact: str = "") -> None:
        """Set the text; `exact` is the text of the tooltip."""
        if text != self.text():
            self.setText(text)
        self.set_exact(exact)

    def set_exact(self, exact: str) -> None:
        """Set the tooltip and accessible description, such as an exact figure."""
        self._exact = exact
        self.setAccessibleDescription(exact)
        self._update_tooltip()

    def setText(self, text: str) -> None:
        super().setText(text.replace("\n", " "))
        self._update_tooltip()

    def minimumSizeHint(self) -> QSize:
        metrics = self.fontMetrics()
        width = min(metrics.horizontalAdvance(self.text()) + 2, 6 * metrics.averageCharWidth())
        return QSize(width, super().minimumSizeHint().height())

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._update_tooltip()

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() == QEvent.Type.FontChange:
            self._update_tooltip()

    def paintEvent(self, event: QPaintEvent) -> None:
        if not self._is_cut() and not self.isRightToLeft():
            super().paintEvent(event)
            return
        from PySide6.QtCore import Qt  # late: see app.theme

        painter = QPainter(self)
        painter.setPen(self.palette().color(self.foregroundRole()))
        # The alignment follows the window, the direction follows the text: English text stays in order in a window
        # that runs from right to left.
        place = QStyle.visualAlignment(self.layoutDirection(), self.alignment()) | Qt.AlignmentFlag.AlignAbsolute
        painter.setLayoutDirection(Qt.LayoutDirection.LayoutDirectionAuto)
        how = Qt.TextElideMode.ElideMiddle if self._middle else Qt.TextElideMode.ElideRight
        room = self.contentsRect()
        painter.drawText(room, place, self.fontMetrics().elidedText(self.text(), how, room.width()))

    def _update_tooltip(self) -> None:
        tip = "\n".join(filter(None, (self.text() if self._is_cut() else "", self._exact)))
        # Escaped inside a tag, as Qt would interpret text that looks like markup.
        self.setToolTip(f"<p style='white-space:pre-line'>{html.escape(tip)}</p>" if tip else "")

    def _is_cut(self) -> bool:
        return self.fontMetrics().horizontalAdvance(self.text()) > self.contentsRect().width()
