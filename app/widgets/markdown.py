"""Safe display of Markdown from a model: the parts of a message, and a text document that loads no resources.

HTML is shown as text, pictures are replaced by their descriptions, links that are not for a browser become text, and
misleading characters (control characters, changes of direction) are removed. Does not depend on widgets.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, NamedTuple

from PySide6.QtCore import QUrl
from PySide6.QtGui import (
    QColor,
    QFont,
    QImage,
    QTextBlock,
    QTextBlockFormat,
    QTextCharFormat,
    QTextCursor,
    QTextDocument,
    QTextFormat,
    QTextFrame,
    QTextFrameFormat,
    QTextTable,
)

FEATURES: Final = QTextDocument.MarkdownFeature.MarkdownDialectGitHub | QTextDocument.MarkdownFeature.MarkdownNoHTML

# C0 and C1 except tab and newline; directional embeddings, overrides and isolates; internals of QTextDocument.
_HIDDEN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufdd0-\ufdef\ufeff\ufffc\ufffe\uffff]"
)
_BREAKS: Final = re.compile("\r\n|[\r\u2028\u2029]")
_HALVES: Final = re.compile("[\ud800-\udfff]")
_FENCE: Final = re.compile(r"( *)(`{3,}(?=[^`]*$)|~{3,})(.*)$")
_LANGUAGE: Final = re.compile(r"[\w+#.-]{1,20}")
_MARKERS: Final = re.compile(r"(?:[ \t]*(?:>|[-+*](?=[ \t])|\d{1,9}[.)](?=[ \t])))+")
_MARKER: Final = re.compile(r"[ \t]*(?:>|[-+*]|\d{1,9}[.)])")
_DEEPEST: Final = 8
"""Maximum nesting of quotations and lists; each level creates a frame, and a model may write thousands."""
_MARK: Final = "\N{MEDIUM MATHEMATICAL SPACE}"
"""A marker that is white space in Markdown and does not occur in the output of models."""
_RIGID: Final = re.compile(r"[ >]*(?:\||[-*_=:|\s]+$|```|~~~|\[[^\]]*\]:)")
"""Lines whose end is significant in Markdown: tables, rules, fences, link definitions."""
_LONG: Final = 4000
_INDENT: Final = 20
"""Indentation in pixels per level of a list or quotation."""


class MessagePart(NamedTuple):
    """A part of a message: prose in Markdown, or the content of a fenced code block in `language`."""

    text: str
    code: bool = False
    language: str = ""


@dataclass(frozen=True)
class TextStyle:
    """The colors and the monospaced font family of a document."""

    link: QColor
    code: QColor
    line: QColor
    mono: str


def clean(text: str) -> str:
    """Return `text` without control characters, with newlines as line ends."""
    return _HALVES.sub("\N{REPLACEMENT CHARACTER}", _HIDDEN.sub("", _BREAKS.sub("\n", text)))


def split(text: str) -> list[MessagePart]:
    """Return the parts of a message. An unclosed code block extends to the end; empty prose is omitted.

    A code block inside a list ends the part of the list: the text after it starts a new part, unindented by the
    indentation of the block.
    """
    parts: list[MessagePart] = []
    lines: list[str] = []
    fence, indent, language = "", 0, ""
    for line in text.split("\n"):
        opening = None if fence else _FENCE.match(line)
        if opening:
            parts += _prose(lines)
            fence, indent = opening[2], len(opening[1])
            found = _LANGUAGE.match(opening[3].strip())
            lines, language = [], found[0] if found else ""
        elif fence and _closes(line, fence):
            parts.append(MessagePart("\n".join(lines), True, language))
            lines, fence = [], ""
        elif fence:
            lines.append(_outdented(line, indent))
        else:
            if indent and line.strip() and not line.startswith(" " * indent):
                indent = 0
            lines.append(_outdented(line, indent))
    if fence:
        parts.append(MessagePart("\n".join(lines), True, language))
    else:
        parts += _prose(lines)
    return parts


class SafeDocument(QTextDocument):
    """A text document that does not load pictures or style sheets."""

    def loadResource(self, _kind: int, _name: QUrl | str) -> Any:
        """Return a blank resource; without one, Qt would look for a file of that name."""
        blank = QImage(1, 1, QImage.Format.Format_ARGB32)
        blank.fill(0)
        return blank


def fill(document: QTextDocument, text: str, look: TextStyle) -> bool:
    """Replace the content of `document` by the prose `text` (from `clean` and `split`); return whether it has a link.

    Line ends are kept, as poems for example need them, although Markdown would replace them by spaces.
    """
    # The newline prevents Qt from reading "---" at the start as front matter, which it hides.
    document.setMarkdown("\n" + _marked([_shallow(line) for line in text.split("\n")]), FEATURES)
    document.setIndentWidth(_INDENT)
    cursor = QTextCursor(document)
    cursor.beginEditBlock()
    _break_lines(document)
    linked = _tame_text(document, look)
    _tame_blocks(document, look)
    _tame_tables(document.rootFrame(), look)
    cursor.endEditBlock()
    return linked


def opens_in_browser(target: str) -> bool:
    """Return whether a link is a web address, the only kind that a click opens."""
    url = QUrl(target, QUrl.ParsingMode.StrictMode)
    return url.isValid() and url.scheme() in ("http", "https") and bool(url.host())


def _shallow(line: str) -> str:
    """Return `line` with at most _DEEPEST markers of quotations and lists before its text."""
    found = _MARKERS.match(line)
    marks = _MARKER.findall(found[0]) if found else []
    return line if len(marks) <= _DEEPEST else "".join(marks[:_DEEPEST]) + " " + line[found.end() :].lstrip()  # type: ignore[union-attr]


def _marked(lines: list[str]) -> str:
    """Return the lines with _MARK at line ends inside a paragraph.

    Qt turns Markdown line breaks into new paragraphs, and in a list into new items.
    """
    marked = []
    for line, following in pairwise([*lines, ""]):
        plain = line.replace(_MARK, " ")
        ends = not plain.strip() or not following.strip() or _RIGID.match(plain)
        marked.append(plain if ends else plain.rstrip().removesuffix("\\") + _MARK)
    return "\n".join(marked)


def _break_lines(document: QTextDocument) -> None:
    """Replace every _MARK, and the space that Qt made of the line end after it, by a line break."""
    cursor = document.find(_MARK)
    while not cursor.isNull():
        start, end = cursor.selectionStart(), cursor.selectionEnd()
        joined = document.characterAt(end) == " "
        cursor.setPosition(start)
        cursor.setPosition(end + joined, QTextCursor.MoveMode.KeepAnchor)
        cursor.insertText("\N{LINE SEPARATOR}" if joined else "")
        cursor = document.find(_MARK, start)


def _prose(lines: list[str]) -> list[MessagePart]:
    """Return prose in parts of about _LONG characters, as the last part is laid out again for every new token."""
    found: list[MessagePart] = []
    begun = size = 0
    for number, line in enumerate(lines):
        paragraph = number > 0 and not lines[number - 1].strip() and line[:1].isalpha()
        if (size > _LONG and paragraph) or size > 4 * _LONG:
            found.append(MessagePart("\n".join(lines[begun:number])))
            begun, size = number, 0
        size += len(line) + 1
    found.append(MessagePart("\n".join(lines[begun:])))
    return [part for part in found if part.text.strip()]


def _closes(line: str, fence: str) -> bool:
    inner = line.strip()
    return len(inner) >= len(fence) and set(inner) == {fence[0]}


def _outdented(line: str, indent: int) -> str:
    """Return `line` without up to `indent` leading spaces."""
    spaces = len(line) - len(line.lstrip(" "))
    return line[min(indent, spaces) :]


class _Run(NamedTuple):
    start: int
    end: int
    text: str
    format: QTextCharFormat


def _runs(document: QTextDocument) -> list[_Run]:
    """Return all fragments of a format, collected first because changes invalidate the iteration."""
    found: list[_Run] = []
    block = document.begin()
    while block.isValid():
        at = block.begin()
        while not at.atEnd():
            fragment = at.fragment()
            start = fragment.position()
            found.append(_Run(start, start + fragment.length(), fragment.text(), fragment.charFormat()))
            at += 1
        block = block.next()
    return found


def _tame_text(document: QTextDocument, look: TextStyle) -> bool:
    """Replace pictures by text, unsafe links by text, and set the font of code, from the end backwards."""
    runs = _runs(document)
    after, linked = "", False
    for run in reversed(runs):
        format, changed = QTextCharFormat(run.format), False
        if format.isImageFormat():
            words = str(format.property(QTextFormat.Property.ImageAltText) or format.toImageFormat().name())
            _select(document, run).insertText(f"[picture: {words}]", QTextCharFormat())
            after = ""
            continue
        target = format.anchorHref() if format.isAnchor() else ""
        if target and opens_in_browser(target):
            format.setForeground(look.link)
            format.setFontUnderline(True)
            # Escaped, as Qt interprets tooltips that look like HTML.
            format.setToolTip(f"<p style='white-space:pre'>{html.escape(target)}</p>")
            changed = linked = True
        elif format.isAnchor():
            plain = _unlinked(format)
            shown = target.removeprefix("mailto:")
            if shown and target != after and shown not in run.text:
                cursor = QTextCursor(document)
                cursor.setPosition(run.end)
                cursor.insertText(f" ({shown})", plain)
            format, changed = plain, True
        after = target
        if format.fontFixedPitch():
            format.setFontFamilies([look.mono])
            format.setBackground(look.code)
            changed = True
        if format.hasProperty(QTextFormat.Property.FontSizeAdjustment):
            size = int(format.property(QTextFormat.Property.FontSizeAdjustment))
            format.setProperty(QTextFormat.Property.FontSizeAdjustment, max(0, size - 1))
            changed = True
        if changed:
            _select(document, run).setCharFormat(format)
    return linked


def _unlinked(format: QTextCharFormat) -> QTextCharFormat:
    plain = QTextCharFormat(format)
    plain.setAnchor(False)
    for name in ("AnchorHref", "AnchorName", "ForegroundBrush", "FontUnderline", "TextUnderlineStyle", "TextToolTip"):
        plain.clearProperty(getattr(QTextFormat.Property, name))
    return plain


def _select(document: QTextDocument, run: _Run) -> QTextCursor:
    cursor = QTextCursor(document)
    cursor.setPosition(run.start)
    cursor.setPosition(run.end, QTextCursor.MoveMode.KeepAnchor)
    return cursor


def _tame_blocks(document: QTextDocument, look: TextStyle) -> None:
    block = document.begin()
    first = block
    while block.isValid():
        following = block.next()
        format = QTextBlockFormat(block.blockFormat())
        _set_margins(format, block, look)
        if block == first:
            format.setTopMargin(0)
        if not following.isValid():
            format.setBottomMargin(0)
        if format.hasProperty(QTextFormat.Property.BlockCodeLanguage):
            # Wrap indented or quoted lines of code, which would be cut off otherwise.
            format.setNonBreakableLines(False)
            format.setBackground(look.code)
        if format != block.blockFormat():
            QTextCursor(block).setBlockFormat(format)
        block = following


def _set_margins(format: QTextBlockFormat, block: QTextBlock, look: TextStyle) -> None:
    quoted = int(format.property(QTextFormat.Property.BlockQuoteLevel) or 0)
    if quoted:
        format.setLeftMargin(_INDENT * quoted)
        format.setRightMargin(0)
        format.setBackground(look.code)
    tabled = QTextCursor(block).currentTable() is not None
    if not block.text() and not tabled and not block.blockFormat().properties():
        # Qt adds an empty paragraph after a table.
        format.setLineHeight(1, QTextBlockFormat.LineHeightTypes.FixedHeight.value)
        above, below = 0, 0
    elif tabled or format.hasProperty(QTextFormat.Property.BlockCodeLanguage):
        above, below = 0, 0
    elif format.headingLevel():
        above, below = 10, 4
    elif block.textList() is not None:
        above, below = 2, 2
    else:
        above, below = 6, 6
    format.setTopMargin(above)
    format.setBottomMargin(below)
    items = block.textList()
    if items is not None and items.format().indent() > _DEEPEST:
        shallow = items.format()
        shallow.setIndent(_DEEPEST)
        items.setFormat(shallow)


def _tame_tables(frame: QTextFrame, look: TextStyle) -> None:
    for child in frame.childFrames():
        if isinstance(child, QTextTable):
            format = child.format()
            format.setBorder(1)
            format.setBorderBrush(look.line)
            format.setBorderStyle(QTextFrameFormat.BorderStyle.BorderStyle_Solid)
            format.setBorderCollapse(True)
            format.setCellPadding(4)
            format.setCellSpacing(0)
            format.setTopMargin(6)
            child.setFormat(format)
            drop_blank(child)
        _tame_tables(child, look)


def drop_blank(table: QTextTable) -> None:
    """Remove the empty paragraph that Qt inserts into the first header cell of a table after a quotation or code."""
    cursor = table.cellAt(0, 0).firstCursorPosition()
    if not cursor.block().text() and cursor.block().next().position() <= table.cellAt(0, 0).lastPosition():
        cursor.deleteChar()
        cursor.movePosition(QTextCursor.MoveOperation.EndOfBlock, QTextCursor.MoveMode.KeepAnchor)
        bold = QTextCharFormat()
        bold.setFontWeight(QFont.Weight.Bold)
        cursor.mergeCharFormat(bold)
