"""Keyboard shortcuts as texts for people."""

from __future__ import annotations

from PySide6.QtGui import QKeySequence


def shown_keys(keys: str) -> str:
    """Return a key sequence as this desktop writes it: `Ctrl+L`, or the symbols of a Mac."""
    return QKeySequence(keys).toString(QKeySequence.SequenceFormat.NativeText) or keys
