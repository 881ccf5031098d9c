"""A label of plain text in a colour of the theme, which follows light and dark. Knows nothing of what it says."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtGui import QFont, QPalette
from PySide6.QtWidgets import QLabel, QWidget

from app.theme import Theme


class TintedLabel(QLabel):
    """Text that stays text, whatever it looks like.

    Args:
        role: a colour of the theme, "" for that of text.
        bold: in the heavier of the two weights; wrap: over several lines where there is little room.
    """

    def __init__(
        self,
        theme: Theme,
        text: str = "",
        *,
        role: str = "",
        bold: bool = False,
        wrap: bool = False,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(text, parent)
        self._theme, self._role = theme, role
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setWordWrap(wrap)
        if bold:
            font = QFont(self.font())
            font.setWeight(QFont.Weight.DemiBold)
            self.setFont(font)
        self.setForegroundRole(QPalette.ColorRole.WindowText)  # inside a button it would be that of buttons
        theme.changed.connect(self._tint)
        self._tint()

    @property
    def role(self) -> str:
        """The role of its colour."""
        return self._role

    def set_role(self, role: str) -> None:
        """Show the text in another colour of the theme, "" for that of text."""
        if role != self._role:
            self._role = role
            self._tint()

    def _tint(self) -> None:
        palette = QPalette()
        if self._role:
            palette.setColor(QPalette.ColorRole.WindowText, self._theme.color(self._role))
        self.setPalette(palette)
