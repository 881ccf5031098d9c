"""The actions of the frame and their keyboard shortcuts, in one table.

Menus, tooltips and the sheet of keyboard shortcuts are built from it. The slots are given when the actions are made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from PySide6.QtCore import QCoreApplication, Qt
from PySide6.QtGui import QAction, QKeySequence
from PySide6.QtWidgets import QWidget

_CONTEXT: Final = "Actions"


@dataclass(frozen=True)
class Entry:
    """A row of the table.

    Attributes:
        id: identifier of the action.
        group: heading in the sheet of keyboard shortcuts.
        text: description in menus and in the sheet.
        keys: key sequences; the first is the one displayed.
        by_window: the window handles the key, after the page: Esc belongs to the page first.
    """

    id: str
    group: str
    text: str
    keys: tuple[str, ...] = ()
    by_window: bool = False


TABLE: Final = (
    Entry("primary", "Run", "Press the main button in the top bar", ("Ctrl+Return", "Ctrl+Enter")),
    Entry("cancel", "Run", "Cancel the run", ("Ctrl+.",)),
    Entry("remedy", "Window", "Press the first button of the message", ("Ctrl+R",)),
    Entry("dismiss", "Window", "Close the message, the sheet or the log", ("Esc",), by_window=True),
    Entry("log", "Window", "Show or hide the log", ("Ctrl+L",)),
    Entry("devices", "Window", "Devices and backends", ("Ctrl+Shift+D",)),
    Entry("shortcuts", "Window", "Keyboard shortcuts", ("?", "F1")),
    Entry("data_folder", "Window", "Open data folder"),
    Entry("about", "Window", "About Bitwright"),
    Entry("quit", "Window", "Quit", ("Ctrl+Q",)),
)


def page_entries(pages: tuple[tuple[str, str], ...]) -> tuple[Entry, ...]:
    """Return an entry for each page (id and title), with Ctrl and its number as the shortcut."""
    return tuple(Entry(f"page.{page}", "Pages", title, (f"Ctrl+{n}",)) for n, (page, title) in enumerate(pages, 1))


def translated(text: str) -> str:
    """Return a text of the table in the user's language."""
    return QCoreApplication.translate(_CONTEXT, text)


def make(window: QWidget, entries: tuple[Entry, ...], slots: Mapping[str, Callable[[], object]]) -> dict[str, QAction]:
    """Return the actions of `entries`. They work anywhere in `window`, and each calls its slot.

    Raises:
        KeyError: an entry has no slot.
    """
    made = {}
    for entry in entries:
        action = QAction(translated(entry.text), window)
        action.setObjectName(f"action.{entry.id}")
        if not entry.by_window:
            action.setShortcuts([QKeySequence(keys) for keys in entry.keys])
        action.setShortcutContext(Qt.ShortcutContext.WindowShortcut)
        action.triggered.connect(_calls(slots[entry.id]))
        window.addAction(action)
        made[entry.id] = action
    return made


def _calls(slot: Callable[[], object]) -> Callable[[], None]:
    def call() -> None:
        slot()

    return call
