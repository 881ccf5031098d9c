"""Highlights of the differences in a displayed answer: a background, and a line under the first difference.

Maps characters of the answer to the laid out text, which lacks the Markdown syntax. The highlights are extra
selections, so the documents are not modified.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from PySide6.QtCore import QPoint
from PySide6.QtGui import QColor, QTextCharFormat, QTextCursor
from PySide6.QtWidgets import QTextEdit, QWidget

from app.pages.chat.comparison.token_diff import Span

_AHEAD: Final = 600
"""Maximum gap in the displayed text in characters of the answer, such as the address of a link."""

_ONLY, _FIRST = 1, 2


@dataclass(frozen=True)
class HighlightColors:
    """Background colors of differences and of the first difference, and the color of the line."""

    only: QColor
    first: QColor
    line: QColor


def mark(
    view: QWidget,
    text: str,
    only: Sequence[Span],
    first: Span | None,
    tints: HighlightColors,
    apart: QWidget | None = None,
) -> None:
    """Highlight spans of `text` in the text widgets of `view`, which show it from top to bottom.

    Widgets in `apart` are skipped, such as the reasoning.
    """
    flags = bytearray(len(text))
    for start, end in only:
        flags[start:end] = bytes([_ONLY]) * (min(end, len(text)) - start)
    if first is not None:
        start, end = first
        flags[start:end] = bytes([_FIRST]) * (min(end, len(text)) - start)
    at = 0
    for edit in _edits(view, apart):
        at = _mark_one(edit, text, flags, at, tints)


def unmark(view: QWidget, apart: QWidget | None = None) -> None:
    """Remove all highlights."""
    for edit in _edits(view, apart):
        edit.setExtraSelections([])


def _edits(view: QWidget, apart: QWidget | None) -> list[QTextEdit]:
    found = [edit for edit in view.findChildren(QTextEdit) if edit.isVisibleTo(view)]
    if apart is not None:
        found = [edit for edit in found if not apart.isAncestorOf(edit)]
    return sorted(found, key=lambda edit: edit.mapTo(view, QPoint(0, 0)).y())


def _mark_one(edit: QTextEdit, text: str, flags: bytearray, at: int, tints: HighlightColors) -> int:
    shown = edit.document().toRawText()
    kinds, at = _aligned(shown, text, flags, at)
    edit.setExtraSelections([_selection(edit, start, end, kind, tints) for start, end, kind in _runs(shown, kinds)])
    return at


def _aligned(shown: str, text: str, flags: bytearray, at: int) -> tuple[bytearray, int]:
    """Return the kind of each displayed character, and the position in `text` after them."""
    kinds = bytearray(len(shown))
    for place, letter in enumerate(shown):
        if letter.isspace() or letter in "\u2028\u2029\ufdd0\ufdd1":
            # White space may differ; between two highlighted words it is highlighted too.
            kinds[place] = kinds[place - 1] if place and kinds[place - 1] == _ONLY else 0
            continue
        found = text.find(letter, at, at + _AHEAD)
        if found >= 0:
            kinds[place], at = flags[found], found + 1
    for place in range(len(shown) - 1, -1, -1):
        behind = kinds[place + 1] if place + 1 < len(shown) else 0
        if shown[place].isspace() and not behind:
            kinds[place] = 0
    return kinds, at


def _runs(shown: str, kinds: bytearray) -> Iterable[tuple[int, int, int]]:
    """Return the runs of equal kind in UTF-16 units, as used by QTextDocument."""
    start = position = 0
    last = 0
    for letter, kind in zip(shown, kinds, strict=True):
        if kind != last:
            if last and position > start:
                yield start, position, last
            start, last = position, kind
        position += 2 if ord(letter) > 0xFFFF else 1
    if last:
        yield start, position, last


def _selection(edit: QTextEdit, start: int, end: int, kind: int, tints: HighlightColors) -> QTextEdit.ExtraSelection:
    found = QTextEdit.ExtraSelection()
    cursor = QTextCursor(edit.document())
    cursor.setPosition(start)
    cursor.setPosition(end, QTextCursor.MoveMode.KeepAnchor)
    format = QTextCharFormat()
    format.setBackground(tints.first if kind == _FIRST else tints.only)
    if kind == _FIRST:
        format.setUnderlineStyle(QTextCharFormat.UnderlineStyle.SingleUnderline)
        format.setUnderlineColor(tints.line)
    found.cursor, found.format = cursor, format
    return found
