"""A stretch of text in a message: selectable, without scroll bars, as high as its text.

Shows Markdown as data (`app.widgets.markdown`); a click on a web address opens the browser, and nothing else does
anything.
"""

from __future__ import annotations

from math import ceil
from typing import Any

from PySide6.QtCore import Qt, QUrl
from PySide6.QtGui import QDesktopServices, QTextCursor, QTextOption, QWheelEvent
from PySide6.QtWidgets import QFrame, QTextBrowser, QTextEdit, QWidget

from app.widgets.markdown import SafeDocument, TextStyle, fill, opens_in_browser


class ProseView(QTextBrowser):
    """Text that is given a width and says how high it is there.

    Signals:
        those of QTextBrowser; `anchorClicked` is dealt with here.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        document = SafeDocument(self)
        document.setDocumentMargin(0)
        document.setUndoRedoEnabled(False)
        self.setDocument(document)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setOpenLinks(False)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setWordWrapMode(QTextOption.WrapMode.WrapAtWordBoundaryOrAnywhere)
        # A fixed width, because the other modes lay the text out again whenever the height changes.
        self.setLineWrapMode(QTextEdit.LineWrapMode.FixedPixelWidth)
        self.viewport().setAutoFillBackground(False)
        self.setAcceptDrops(False)
        self.setTabChangesFocus(True)
        self.anchorClicked.connect(self._open)

    def show_markdown(self, text: str, look: TextStyle) -> None:
        """Show prose in Markdown; what was selected before stays selected as far as it is still there."""
        # Numbers, not the cursor: it moves along when the text is replaced.
        anchor, position = self.textCursor().anchor(), self.textCursor().position()
        linked = fill(self.document(), text, look)
        if anchor != position:
            self._select(anchor, position)
        # Reached by Tab only where there is a link to open; all text can be copied with the message's button.
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus if linked else Qt.FocusPolicy.ClickFocus)

    def show_plain(self, text: str) -> None:
        """Show text as it is."""
        self.setPlainText(text)
        self.setFocusPolicy(Qt.FocusPolicy.ClickFocus)

    def height_at(self, width: int) -> int:
        """Height of the text in lines of `width` pixels."""
        if width != self.lineWrapColumnOrWidth():
            self.setLineWrapColumnOrWidth(width)
        return ceil(self.document().size().height())

    def natural_width(self) -> int:
        """Width of the longest line as it is broken now."""
        return ceil(self.document().idealWidth()) + 1

    def loadResource(self, _kind: int, _name: QUrl | str) -> Any:
        """A blank: text from a model fetches nothing."""
        return self.document().loadResource(_kind, _name)

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Leave turning the wheel to the conversation around."""
        event.ignore()

    def _open(self, target: QUrl) -> None:
        if opens_in_browser(target.toString()):
            QDesktopServices.openUrl(target)

    def _select(self, anchor: int, position: int) -> None:
        last = self.document().characterCount() - 1
        cursor = self.textCursor()
        cursor.setPosition(min(anchor, last))
        cursor.setPosition(min(position, last), QTextCursor.MoveMode.KeepAnchor)
        self.setTextCursor(cursor)
