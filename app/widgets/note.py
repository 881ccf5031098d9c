"""A short text beside a field: an explanation, a count, or an error.

Hidden if it is empty, and never wider than its column.
"""

from __future__ import annotations

from PySide6.QtWidgets import QSizePolicy, QWidget

from app.theme import Theme
from app.widgets.tinted_label import TintedLabel


class Note(TintedLabel):
    """A label that wraps its text, with the role `muted` by default."""

    def __init__(self, theme: Theme, text: str = "", *, role: str = "muted", parent: QWidget) -> None:
        super().__init__(theme, text, role=role, wrap=True, parent=parent)
        policy = self.sizePolicy()
        # a long word, such as a path, must not widen the page
        policy.setHorizontalPolicy(QSizePolicy.Policy.Ignored)
        self.setSizePolicy(policy)
        self.setVisible(bool(text))

    def set_text(self, text: str, role: str = "muted") -> None:
        """Set the text in the color of `role`; hide the label if the text is empty."""
        self.set_role(role)
        if text != self.text():
            self.setText(text)
        self.setVisible(bool(text))
