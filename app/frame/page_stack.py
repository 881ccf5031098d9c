"""The pages, each created when it is first needed, from one table of dotted names.

Shows an error text in place of a page that cannot be created.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from PySide6.QtCore import QTimer, Signal
from PySide6.QtWidgets import QFrame, QLabel, QLineEdit, QScrollArea, QStackedWidget, QWidget

if TYPE_CHECKING:
    from app.shared.context import Context

_log = logging.getLogger(__name__)


class PageEntry(NamedTuple):
    """A page: its id, its title in the rail, and the location of its class."""

    id: str
    title: str
    module: str
    cls: str


PAGES: Final = (
    PageEntry("model", "Model", "app.pages.model.page", "ModelPage"),
    PageEntry("recipe", "Recipe", "app.pages.recipe.page", "RecipePage"),
    PageEntry("layers", "Layers", "app.pages.layers.page", "LayersPage"),
    PageEntry("run", "Run", "app.pages.run.page", "RunPage"),
    PageEntry("chat", "Chat", "app.pages.chat.page", "ChatPage"),
    PageEntry("convert", "Convert", "app.pages.convert.page", "ConvertPage"),
)
"""All pages, in the order of the workflow."""


class PageStack(QStackedWidget):
    """A stack with one visible page. The others are created one by one while the application is idle.

    Signals:
        built: a page was created; its id.
        complete: all pages were created.
        shown: another page is shown; its id.
        failed: a page could not be created; the error to show, and the traceback.
    """

    built = Signal(str)
    complete = Signal()
    shown = Signal(str)
    failed = Signal(object, str)

    def __init__(self, pages: Sequence[PageEntry], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("pages")
        self._entries = {entry.id: entry for entry in pages}
        self._context: Context | None = None
        self._pages: dict[str, QWidget] = {}
        self._places: dict[str, QScrollArea] = {}
        self._current = pages[0].id

    @property
    def current(self) -> str:
        """Id of the current page."""
        return self._current

    @property
    def pages(self) -> dict[str, QWidget]:
        """The pages created so far, by id."""
        return self._pages

    def furnish(self, context: Context) -> None:
        """Create the pages: the current one at once, the others one by one."""
        self._context = context
        self.show_page(self._current)
        QTimer.singleShot(0, self, self._build_next)

    def page(self, page: str) -> QWidget | None:
        """Return the page, which is created if needed; None before `furnish`."""
        if page not in self._pages and self._context is not None:
            self._pages[page] = self._make(self._entries[page], self._context)
            self._places[page] = place = _place(self._pages[page])
            self.addWidget(place)
            self.built.emit(page)
        return self._pages.get(page)

    def show_page(self, page: str) -> None:
        """Show a page; before `furnish`, only remember it."""
        self._current = page
        if self.page(page) is not None:
            self.setCurrentWidget(self._places[page])
            self.shown.emit(page)

    def _build_next(self) -> None:
        missing = [page for page in self._entries if page not in self._pages]
        if missing:
            self.page(missing[0])
            QTimer.singleShot(0, self, self._build_next)
        else:
            self.complete.emit()

    def _make(self, entry: PageEntry, context: Context) -> QWidget:
        try:
            page: QWidget = getattr(importlib.import_module(entry.module), entry.cls)(context)
        except Exception:  # noqa: BLE001 - the other pages must remain usable
            import traceback

            from app.failures import inside_error

            details = traceback.format_exc()
            _log.exception("The page %s could not be created", entry.title)
            self.failed.emit(inside_error(), details)
            page = QLabel(self.tr("This page could not be loaded. See the log for details."))
            page.setProperty("alignment", "AlignCenter")  # by name: see app.theme
        for field in page.findChildren(QLineEdit):
            field.setAcceptDrops(False)  # the window handles drops
        return page


def _place(page: QWidget) -> QScrollArea:
    """Return the scroll area of a page; it scrolls only if the window is smaller than the page's minimum size."""
    place = QScrollArea()
    place.setFrameShape(QFrame.Shape.NoFrame)
    place.setWidgetResizable(True)
    place.setProperty("focusPolicy", "NoFocus")
    place.setWidget(page)
    return place
