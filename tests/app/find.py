"""A typed search for one descendant of a widget, which fails where there is none."""

from __future__ import annotations

from typing import TypeVar

from PySide6.QtCore import QObject

Found = TypeVar("Found", bound=QObject)


def find(parent: QObject, kind: type[Found], name: str = "") -> Found:
    """Return the first descendant of `parent` of a class, with an object name if one is given."""
    found = parent.findChild(kind, name) if name else parent.findChild(kind)
    assert isinstance(found, kind), f"no {kind.__name__} {name!r} in {type(parent).__name__}"
    return found
