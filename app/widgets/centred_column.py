"""A column of limited width in the middle of a page, as for an empty state."""

from __future__ import annotations

from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget


def centred_column(page: QWidget, width: int) -> QVBoxLayout:
    """Return the layout of a column in the middle of `page` that is at most `width` pixels wide."""
    middle = QWidget(page)
    middle.setMaximumWidth(width)
    column = QVBoxLayout(middle)
    column.setContentsMargins(0, 0, 0, 0)
    column.setSpacing(16)
    row = QHBoxLayout()
    row.addStretch(1)
    row.addWidget(middle, 1000)
    row.addStretch(1)
    whole = QVBoxLayout(page)
    whole.setContentsMargins(0, 0, 0, 0)
    whole.addStretch(2)
    whole.addLayout(row)
    whole.addStretch(3)
    return column
