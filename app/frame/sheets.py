"""The sheets of the settings menu, and the data folder. Each sheet is created on first use."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

from PySide6.QtCore import QUrl
from PySide6.QtGui import QDesktopServices
from PySide6.QtWidgets import QWidget

from app.frame.about_sheet import AboutSheet
from app.frame.actions import Entry
from app.frame.devices_sheet import DevicesSheet
from app.frame.sheet import Sheet
from app.frame.shortcuts_sheet import ShortcutsSheet, groups_of
from app.shared.context import Context, Remedy
from app.theme import Theme
from core.errors import BitwrightError
from core.home import home


class Sheets:
    """The sheets over `ground`, one at a time."""

    def __init__(self, theme: Theme, ground: QWidget, entries: tuple[Entry, ...]) -> None:
        self._theme, self._ground, self._entries = theme, ground, entries
        self._keys: ShortcutsSheet | None = None
        self._about: AboutSheet | None = None
        self._devices: DevicesSheet | None = None

    @property
    def shown(self) -> Sheet | None:
        """The visible sheet, or None."""
        made = (self._keys, self._about, self._devices)
        return next((sheet for sheet in made if sheet is not None and sheet.isVisible()), None)

    def show_keys(self, pages: Mapping[str, QWidget]) -> None:
        """Show the keyboard shortcuts, including those of `pages`; close the sheet if it is open."""
        if self._keys is None:
            self._keys = ShortcutsSheet(self._theme, self._ground)
        self._keys.fill(groups_of(self._entries, pages))
        self._toggle(self._keys)

    def show_about(self) -> None:
        """Show version and license; close the sheet if it is open."""
        if self._about is None:
            self._about = AboutSheet(self._theme, home(), self._ground)
        self._toggle(self._about)

    def show_devices(self, context: Context) -> None:
        """Show the devices and backends; close the sheet if it is open."""
        if self._devices is None:
            self._devices = DevicesSheet(context, self._ground)
        self._toggle(self._devices)

    def _toggle(self, sheet: Sheet) -> None:
        before = self.shown
        if before is not None:
            before.dismiss()
        if before is not sheet:
            sheet.present()


def open_data_folder(
    report: Callable[[BitwrightError, Remedy | None], object], copies: Callable[[str], Remedy]
) -> None:
    """Open Bitwright's folder in the file manager of the desktop, or report its path."""
    folder = home()
    with contextlib.suppress(OSError):  # reported below: no file manager opens it then
        folder.mkdir(parents=True, exist_ok=True)
    if not QDesktopServices.openUrl(QUrl.fromLocalFile(str(folder))):
        error = BitwrightError("The data folder could not be opened in a file manager.", f"Its path is {folder}.")
        report(error, copies(str(folder)))
