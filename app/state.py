"""Settings that the window keeps between sessions: typed access to an INI file.

Only appearance and habits are stored here; everything that a run depends on is in its job folder. Depends on QtCore
only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, TypeVar

from PySide6.QtCore import QByteArray, QSettings

from core.home import settings_home

SCHEMES: Final = ("system", "light", "dark")
_RECENT: Final = 12

T = TypeVar("T")


def default_path() -> Path:
    """Return `window.ini` in the user's configuration folder, or in BITWRIGHT_HOME if that is set."""
    return settings_home() / "window.ini"


class State:
    """Stored values. One that is missing, unreadable or of an unexpected type counts as not set."""

    def __init__(self, path: Path | None = None) -> None:
        self._settings = QSettings(str(path or default_path()), QSettings.Format.IniFormat)

    @property
    def geometry(self) -> QByteArray:
        """Position and size of the window, as Qt saves them; empty at the first start."""
        found = self._settings.value("window/geometry")
        return found if isinstance(found, QByteArray) else QByteArray()

    @geometry.setter
    def geometry(self, value: QByteArray) -> None:
        self._settings.setValue("window/geometry", value)

    @property
    def page(self) -> str:
        """Id of the page that was shown last; "" at the first start."""
        return self._word("window/page")

    @page.setter
    def page(self, value: str) -> None:
        self._settings.setValue("window/page", value)

    @property
    def scheme(self) -> str:
        """Color scheme: `system`, `light` or `dark`."""
        found = self._word("window/scheme")
        return found if found in SCHEMES else "system"

    @scheme.setter
    def scheme(self, value: str) -> None:
        self._settings.setValue("window/scheme", value)

    @property
    def recent(self) -> list[str]:
        """Names of the models opened last, the most recent first."""
        names: list[Any] = self.value("models/recent", [])
        return [name for name in names if isinstance(name, str) and name]

    def add_recent(self, name: str) -> None:
        """Put a model at the front of `recent`."""
        others = [known for known in self.recent if known != name]
        self.set_value("models/recent", [name, *others][:_RECENT])

    def forget_recent(self, name: str) -> None:
        """Remove a model from `recent`, such as a folder that no longer exists."""
        self.set_value("models/recent", [known for known in self.recent if known != name])

    def value(self, key: str, default: T) -> T:
        """Return the value stored under `key`, or `default` if its type differs; an int is accepted for a float."""
        import json  # imported late: not needed before the first paint

        text = self._settings.value(key)
        if not isinstance(text, str):
            return default
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return default
        if isinstance(default, float) and type(found) is int:
            found = float(found)
        return found if default is None or type(found) is type(default) else default

    def set_value(self, key: str, value: Any) -> None:
        """Store a value that JSON can represent under a key such as `chat/temperature`."""
        import json

        self._settings.setValue(key, json.dumps(value))

    def _word(self, key: str) -> str:
        found = self._settings.value(key)
        return found if isinstance(found, str) else ""

    def save(self) -> None:
        """Write the file now. Otherwise Qt writes it within seconds and at exit."""
        self._settings.sync()
