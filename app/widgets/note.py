"""A line or two beside a field: an explanation, a count, what is wrong with a value.

Takes no room while it has nothing to say, and never makes a page wider. Knows nothing of what it says.
"""

from __future__ import annotations

from PySide6.QtWidgets import QSizePolicy, QWidget

from app.theme import Theme
from app.widgets.tinted_label import TintedLabel


class Note(TintedLabel):
    """Text that wraps, `muted` unless another role of the theme is given. Needs a parent before it speaks."""

    def __init__(self, theme: Theme, text: str = "", *, role: str = "muted", parent: QWidget) -> None:
        super().__init__(theme, text, role=role, wrap=True, parent=parent)
        policy = self.sizePolicy()
        # a long word, such as a path, must not make the page wider than the window
        policy.setHorizontalPolicy(QSizePolicy.Policy.Ignored)
        self.setSizePolicy(policy)
        self.setVisible(bool(text))

    def set_text(self, text: str, role: str = "muted") -> None:
        """Show `text` in the colour of `role`; hide where there is none."""
        self.set_role(role)
        if text != self.text():
            self.setText(text)
        self.setVisible(bool(text))
