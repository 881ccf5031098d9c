"""Small pages for tests of the frame, which record calls and can show a dot."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QLabel, QLineEdit, QPushButton, QVBoxLayout, QWidget

from app.frame.page_stack import PageEntry
from app.shared.context import Context

PAGES = tuple(
    PageEntry(page, page.title(), "tests.app.frame_pages", "SmallPage")
    for page in ("model", "recipe", "layers", "run", "chat")
)
BROKEN = (*PAGES[:1], PageEntry("recipe", "Recipe", "tests.app.frame_pages", "BrokenPage"), *PAGES[2:])


class SmallPage(QWidget):
    """A page with a field, a next button and a dot."""

    dot_changed = Signal()
    title = "Small"
    keys = (("Ctrl+D", "Do what small pages do"),)

    def __init__(self, context: Context, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.context = context
        self.asked: list[tuple[str, str]] = []
        self.has_news = False
        self.field = QLineEdit()
        self.next = QPushButton("Next")
        self.next.setObjectName("next")
        column = QVBoxLayout(self)
        for widget in (QLabel("A small page"), self.field, self.next):
            column.addWidget(widget)

    def open_model(self, name: str) -> None:
        """Record the model."""
        self.asked.append(("model", name))

    def open_file(self, path: str) -> None:
        """Record the file."""
        self.asked.append(("file", path))

    def dot(self) -> bool:
        """Return whether the page shows a dot."""
        return self.has_news


class BrokenPage(QWidget):
    """A page that cannot be made."""

    def __init__(self, context: Context, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        raise RuntimeError("this page is broken")
