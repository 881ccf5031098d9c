"""Marks on an answer as it is shown: a ground behind what only this answer says, a line under where the two part.

Finds the characters of the answer again in the laid out text, which lacks the signs of Markdown. Changes no document:
the marks lie over it, as a selection does. Knows no conversation.
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
"""Characters of the answer that may be missing in what is shown, such as an address behind a link."""

_ONLY, _FIRST = 1, 2


@dataclass(frozen=True)
class HighlightColors:
    """Grounds of what differs and of the first difference, and the line under that."""

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
    """Mark stretches of `text` in the text widgets of `view`, which show it in their order from top to bottom.

    What is in `apart` shows something else, such as thoughts.
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
    """Take all marks away."""
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
    """The kind of each shown character, from the character of `text` that it is; and where `text` goes on behind it."""
    kinds = bytearray(len(shown))
    for place, letter in enumerate(shown):
        if letter.isspace() or letter in "\u2028\u2029\ufdd0\ufdd1":
            # White space is laid out anew; between two marked words it is marked with them.
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
    """Stretches of one kind, in the units of a document, of which a character beyond 16 bits takes two."""
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
