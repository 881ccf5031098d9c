"""Display of a model card: Markdown is laid out; everything else is shown as plain text.

A card is untrusted. HTML in it stays text, no resource is loaded, and the target of a link is shown before it is
followed.
"""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QUrl, Signal
from PySide6.QtGui import (
    QTextBlock,
    QTextCharFormat,
    QTextCursor,
    QTextFormat,
    QTextFrameFormat,
    QTextOption,
    QTextTable,
)
from PySide6.QtWidgets import QTextBrowser, QWidget

from app.theme import Theme
from app.widgets.markdown import FEATURES, SafeDocument, clean, drop_blank, opens_in_browser
from app.widgets.tints import code_color

_MARGIN = 12
_HEADING_GAP = 16


class CardView(QTextBrowser):
    """A view of one card.

    Signals:
        followed: address of a clicked web link (str).
        pointed: address of the link under the pointer, "" for none (str).
    """

    followed = Signal(str)
    pointed = Signal(str)

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._markdown = ""
        self.setDocument(self._new_document())
        self.setObjectName("card")
        self.setAccessibleName(self.tr("Model card"))
        self.setOpenLinks(False)
        self.setAcceptDrops(False)
        self.setTabChangesFocus(True)
        self.setWordWrapMode(QTextOption.WrapMode.WrapAtWordBoundaryOrAnywhere)
        self._base = QUrl()
        self.anchorClicked.connect(self._follow)
        theme.changed.connect(self._lay_out)
        self.highlighted.connect(lambda url: self.pointed.emit(self._target(url)))

    def show_card(self, markdown: str, base: str = "") -> None:
        """Show a card; `base` is the base address of its relative links, "" to disable them."""
        self._base = QUrl(base)
        self._markdown = markdown
        self._lay_out()
        self.verticalScrollBar().setValue(0)

    def show_message(self, text: str) -> None:
        """Show a message instead of a card."""
        self._base, self._markdown = QUrl(), ""
        self.setPlainText(text)

    def loadResource(self, _kind: int, _name: QUrl | str) -> Any:
        """Return an empty resource: nothing is loaded for a card."""
        return self.document().loadResource(_kind, _name)

    def _lay_out(self) -> None:
        if not self._markdown:
            return
        # Filled before the view gets it: a layout after every change takes five times as long.
        document, before = self._new_document(), self.document()
        # The newline keeps Qt from parsing a rule at the top as front matter, which it would hide.
        document.setMarkdown("\n" + clean(self._markdown), FEATURES)
        cursor = QTextCursor(document)
        cursor.beginEditBlock()
        block = document.begin()
        while block.isValid():
            self._set_style(block)
            block = block.next()
        for frame in document.rootFrame().childFrames():
            if isinstance(frame, QTextTable):
                self._set_table_style(frame)
        cursor.endEditBlock()
        self.setDocument(document)
        before.deleteLater()

    def _new_document(self) -> SafeDocument:
        document = SafeDocument(self)
        document.setUndoRedoEnabled(False)
        document.setDocumentMargin(_MARGIN)
        document.setDefaultFont(self.font())
        return document

    def _set_style(self, block: QTextBlock) -> None:
        """Set margins and size of a heading, and the background of a code line; long code lines wrap."""
        form = block.blockFormat()
        level = form.headingLevel()
        cursor = QTextCursor(block)
        if level:
            form.setTopMargin(_HEADING_GAP if block.blockNumber() else 0)
            form.setBottomMargin(_HEADING_GAP / 2)
            cursor.movePosition(QTextCursor.MoveOperation.EndOfBlock, QTextCursor.MoveMode.KeepAnchor)
            size = QTextCharFormat()
            size.setProperty(QTextFormat.Property.FontSizeAdjustment, max(0, 3 - level))
            cursor.mergeCharFormat(size)
        elif form.nonBreakableLines():
            form.setNonBreakableLines(False)
            form.setBackground(code_color(self._theme, self.palette()))
        else:
            return
        cursor.setBlockFormat(form)

    def _set_table_style(self, table: QTextTable) -> None:
        """Set thin borders and padding."""
        form = table.format()
        form.setBorder(1)
        form.setBorderBrush(self._theme.color("line"))
        form.setBorderStyle(QTextFrameFormat.BorderStyle.BorderStyle_Solid)
        form.setBorderCollapse(True)
        form.setCellPadding(4)
        form.setCellSpacing(0)
        form.setTopMargin(_HEADING_GAP / 2)
        form.setBottomMargin(_HEADING_GAP / 2)
        table.setFormat(form)
        drop_blank(table)

    def _target(self, url: QUrl) -> str:
        """Return the absolute address of a link; "" if it is not a web page."""
        if url.isRelative():
            if self._base.isEmpty() or not url.path():
                return ""
            url = self._base.resolved(url)
        return url.toString() if opens_in_browser(url.toString()) else ""

    def _follow(self, url: QUrl) -> None:
        target = self._target(url)
        if target:
            self.followed.emit(target)
