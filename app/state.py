"""What the window remembers from one start to the next: a typed face on one INI file.

Only looks and habits live here. Whatever a run depends on is in its job folder. Knows no widget.
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
    """`window.ini` in the user's folder for settings, or in BITWRIGHT_HOME where that is set."""
    return settings_home() / "window.ini"


class State:
    """Remembered values. One that is missing, unreadable or of another kind than expected counts as never set."""

    def __init__(self, path: Path | None = None) -> None:
        self._settings = QSettings(str(path or default_path()), QSettings.Format.IniFormat)

    @property
    def geometry(self) -> QByteArray:
        """Place and size of the window, as Qt saves them; empty at the first start."""
        found = self._settings.value("window/geometry")
        return found if isinstance(found, QByteArray) else QByteArray()

    @geometry.setter
    def geometry(self, value: QByteArray) -> None:
        self._settings.setValue("window/geometry", value)

    @property
    def page(self) -> str:
        """Id of the page that was shown last, "" at the first start."""
        return self._word("window/page")

    @page.setter
    def page(self, value: str) -> None:
        self._settings.setValue("window/page", value)

    @property
    def scheme(self) -> str:
        """`system`, `light` or `dark`."""
        found = self._word("window/scheme")
        return found if found in SCHEMES else "system"

    @scheme.setter
    def scheme(self, value: str) -> None:
        self._settings.setValue("window/scheme", value)

    @property
    def recent(self) -> list[str]:
        """Names of the models opened last, the latest first."""
        names: list[Any] = self.value("models/recent", [])
        return [name for name in names if isinstance(name, str) and name]

    def add_recent(self, name: str) -> None:
        """Put a model at the front of `recent`."""
        others = [known for known in self.recent if known != name]
        self.set_value("models/recent", [name, *others][:_RECENT])

    def forget_recent(self, name: str) -> None:
        """Take a model out of `recent`, such as a folder that is gone."""
        self.set_value("models/recent", [known for known in self.recent if known != name])

    def value(self, key: str, default: T) -> T:
        """What `set_value` noted under `key`, if it is of the kind of `default`; a whole number will do for a float."""
        import json  # what is read before the first paint needs none

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
        """Note a value that JSON can hold, under a key such as `chat/temperature`."""
        import json

        self._settings.setValue(key, json.dumps(value))

    def _word(self, key: str) -> str:
        found = self._settings.value(key)
        return found if isinstance(found, str) else ""

    def save(self) -> None:
        """Write the file now; Qt does it by itself within seconds and at the end."""
        self._settings.sync()
