"""The sheet of keyboard shortcuts, built from the table of actions and from the actions of the pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PySide6.QtCore import Qt
from PySide6.QtGui import QKeySequence, QPalette
from PySide6.QtWidgets import QFrame, QGridLayout, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from app.frame.actions import Entry, translated
from app.frame.sheet import Sheet
from app.theme import Theme
from app.widgets.shortcut_keys import shown_keys

_MANY = 20
_WORDS_WIDTH = 144

Rows = Sequence[tuple[str, str]]
"""Key sequences in native notation, and their descriptions."""


class ShortcutsSheet(Sheet):
    """All keyboard shortcuts, with a heading for each group."""

    def __init__(self, theme: Theme, parent: QWidget) -> None:
        super().__init__(theme, parent)
        self.setObjectName("shortcuts_sheet")
        self.set_title(self.tr("Keyboard shortcuts"))

    def fill(self, groups: Sequence[tuple[str, Rows]]) -> None:
        """Show `groups` (heading and rows) in columns of about equal length."""
        content = QWidget()
        row = QHBoxLayout(content)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(32)
        wanted = 3 if sum(len(rows) for _heading, rows in groups) > _MANY else 2
        columns = [QVBoxLayout() for _ in range(wanted)]
        lengths = [0] * wanted
        for heading, rows in sorted(groups, key=lambda group: -len(group[1])):
            place = lengths.index(min(lengths))
            lengths[place] += len(rows) + 2
            columns[place].addLayout(_group(heading, rows))
        for column in columns:
            column.setSpacing(16)
            column.addStretch(1)
            row.addLayout(column, 1)
        self.set_content(content)


def _group(heading: str, rows: Rows) -> QVBoxLayout:
    title = QLabel(heading)
    font = title.font()
    font.setWeight(font.Weight.DemiBold)
    title.setFont(font)
    grid = QGridLayout()
    grid.setHorizontalSpacing(16)
    grid.setVerticalSpacing(4)
    grid.setColumnStretch(1, 1)
    for line, (keys, text) in enumerate(rows):
        grid.addWidget(_key(keys), line, 0, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop)
        words = QLabel(text)
        words.setTextFormat(Qt.TextFormat.PlainText)
        words.setWordWrap(True)
        words.setMinimumWidth(_WORDS_WIDTH)
        grid.addWidget(words, line, 1)
    column = QVBoxLayout()
    column.setSpacing(8)
    column.addWidget(title)
    column.addLayout(grid)
    return column


def _key(keys: str) -> QLabel:
    label = QLabel(keys)
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setFrameShape(QFrame.Shape.StyledPanel)
    label.setAutoFillBackground(True)
    label.setBackgroundRole(QPalette.ColorRole.Base)
    label.setMargin(3)
    metrics = label.fontMetrics()
    label.setMinimumWidth(max(metrics.horizontalAdvance(text) for text in (keys, "Ctrl+M")) + 12)
    label.setAlignment(Qt.AlignmentFlag.AlignCenter)
    return label


def groups_of(entries: Sequence[Entry], pages: Mapping[str, QWidget]) -> list[tuple[str, Rows]]:
    """Return the rows of the sheet: the frame's actions by group, then the keys of each page.

    A page's keys are its actions with a text and a shortcut, and the pairs of its attribute `keys`.
    """
    groups: dict[str, list[tuple[str, str]]] = {}
    for entry in entries:
        if entry.keys:
            groups.setdefault(translated(entry.group), []).append((shown_keys(entry.keys[0]), translated(entry.text)))
    for page in pages.values():
        rows = [
            (action.shortcut().toString(QKeySequence.SequenceFormat.NativeText), action.text().replace("&", ""))
            for widget in (page, *page.findChildren(QWidget))
            for action in widget.actions()
            if not action.shortcut().isEmpty() and action.text()
        ]
        rows += [(shown_keys(keys), text) for keys, text in getattr(page, "keys", ())]
        if rows:
            groups[str(getattr(page, "title", page.objectName()))] = list(dict.fromkeys(rows))
    return list(groups.items())
