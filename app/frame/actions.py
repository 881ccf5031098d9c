"""All that the keyboard can do in the frame, as one table; menus, tooltips and the sheet of keys are made from it.

Knows ids, texts and keys; what an action does is given when it is made.
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
    """One row of the table.

    Attributes:
        id: how the program calls it.
        group: under which heading the sheet shows it.
        text: what it does, as menus and the sheet say it.
        keys: its key sequences; the first is the one that is shown.
        by_window: the window listens for the key itself, after the page: Esc belongs to a page first.
    """

    id: str
    group: str
    text: str
    keys: tuple[str, ...] = ()
    by_window: bool = False


TABLE: Final = (
    Entry("primary", "Run", "Do what the coloured button at the top says", ("Ctrl+Return", "Ctrl+Enter")),
    Entry("cancel", "Run", "Cancel the run", ("Ctrl+.",)),
    Entry("remedy", "Window", "Do what the message above the page offers", ("Ctrl+R",)),
    Entry("dismiss", "Window", "Close the message, this sheet or the log", ("Esc",), by_window=True),
    Entry("log", "Window", "Show or hide the log", ("Ctrl+L",)),
    Entry("devices", "Window", "Devices and backends", ("Ctrl+Shift+D",)),
    Entry("shortcuts", "Window", "Show all keys", ("?", "F1")),
    Entry("data_folder", "Window", "Open the data folder"),
    Entry("about", "Window", "About Bitwright"),
    Entry("quit", "Window", "Close the window", ("Ctrl+Q",)),
)


def page_entries(pages: tuple[tuple[str, str], ...]) -> tuple[Entry, ...]:
    """An entry for each page (id and title), with Ctrl and its number."""
    return tuple(Entry(f"page.{page}", "Pages", title, (f"Ctrl+{n}",)) for n, (page, title) in enumerate(pages, 1))


def translated(text: str) -> str:
    """A text of the table in the user's language."""
    return QCoreApplication.translate(_CONTEXT, text)


def make(window: QWidget, entries: tuple[Entry, ...], slots: Mapping[str, Callable[[], object]]) -> dict[str, QAction]:
    """The actions of `entries`, working anywhere in `window`, each calling its slot.

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
