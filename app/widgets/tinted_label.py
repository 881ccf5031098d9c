"""A label of plain text in a color of the theme."""

from __future__ import annotations

from PySide6.QtGui import QFont, QPalette
from PySide6.QtWidgets import QLabel, QWidget

from app.theme import Theme


class TintedLabel(QLabel):
    """A label that shows plain text, never markup.

    Args:
        theme: needed only for a color; role: a color of the theme, "" for the text color.
        bold: use the bold weight; scale: font size relative to other text.
        wrap: wrap the text into several lines.
    """

    def __init__(
        self,
        theme: Theme | None,
        text: str = "",
        *,
        role: str = "",
        bold: bool = False,
        scale: float = 1.0,
        wrap: bool = False,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(text, parent)
        self._theme, self._role = theme, role
        self.setProperty("textFormat", "PlainText")  # by name: see app.theme
        self.setWordWrap(wrap)
        if bold or scale != 1.0:
            font = QFont(self.font())
            font.setPointSizeF(font.pointSizeF() * scale)
            font.setWeight(QFont.Weight.DemiBold if bold else QFont.Weight.Normal)
            self.setFont(font)
        self.setForegroundRole(QPalette.ColorRole.WindowText)  # inside a button the default would be that of buttons
        if theme is not None:
            theme.changed.connect(self._tint)
            self._tint()

    @property
    def role(self) -> str:
        """The color role."""
        return self._role

    def set_role(self, role: str) -> None:
        """Set the color role, "" for the text color."""
        if role != self._role:
            self._role = role
            self._tint()

    def _tint(self) -> None:
        palette = QPalette()
        if self._role and self._theme is not None:
            palette.setColor(QPalette.ColorRole.WindowText, self._theme.color(self._role))
        self.setPalette(palette)
