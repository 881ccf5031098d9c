"""Checks of a page for widgets that a screen reader or the keyboard cannot use."""

from __future__ import annotations

from collections.abc import Iterator

from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSlider,
    QAbstractSpinBox,
    QComboBox,
    QHeaderView,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
    QProgressBar,
    QScrollBar,
    QTextEdit,
    QWidget,
)  # fmt: skip

INTERACTIVE = (
    QAbstractButton, QAbstractItemView, QAbstractSlider, QAbstractSpinBox, QComboBox, QLineEdit, QPlainTextEdit,
    QProgressBar, QTextEdit,
)  # fmt: skip


def interactive(root: QWidget) -> Iterator[QWidget]:
    """Return the usable widgets in `root`, without inner widgets of other widgets."""
    outer = (QAbstractSpinBox, QComboBox, QLineEdit)
    for widget in (root, *root.findChildren(QWidget)):
        parent = widget.parent()
        around = [parent, parent.parent() if parent is not None else None]
        inside = any(isinstance(each, outer) for each in around) or isinstance(widget, QScrollBar | QHeaderView)
        qts_own = widget.objectName().startswith("qt_") or type(widget).__name__ == "QTableCornerButton"
        if isinstance(widget, INTERACTIVE) and widget.isVisibleTo(root) and not (inside or qts_own):
            yield widget


def unnamed(root: QWidget) -> list[str]:
    """The interactive widgets that a screen reader could only call by their kind."""
    buddies = {label.buddy() for label in root.findChildren(QLabel) if label.buddy() is not None}
    found = []
    for widget in interactive(root):
        text = widget.text().replace("&", "").strip() if isinstance(widget, QAbstractButton) else ""
        if not (text or widget.accessibleName() or widget in buddies):
            found.append(f"{type(widget).__name__} {widget.objectName()!r} in {type(widget.parent()).__name__}")
    return found


def unreachable(root: QWidget) -> list[str]:
    """Return the widgets that cannot be reached with Tab, or with Tab and arrow keys in a button group."""
    found = [widget for widget in interactive(root) if not isinstance(widget, QProgressBar)]
    rows = {widget.parent() for widget in found if takes_tab(widget)}
    return [
        f"{type(widget).__name__} {widget.objectName()!r} in {type(widget.parent()).__name__}"
        for widget in found
        if not takes_tab(widget) and not (isinstance(widget, QAbstractButton) and widget.parent() in rows)
    ]


def takes_tab(widget: QWidget) -> bool:
    """Return whether the Tab key stops at a widget or at its focus proxy."""
    return bool(widget.focusPolicy() & Qt.FocusPolicy.TabFocus) or widget.focusProxy() is not None
