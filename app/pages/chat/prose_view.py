"""Text of a message: selectable, without scroll bars, with the height of its content.

Shows Markdown as data (`app.widgets.markdown`); only links to web addresses can be followed.
"""

from __future__ import annotations

from math import ceil
from typing import Any

from PySide6.QtCore import Qt, QUrl
from PySide6.QtGui import QDesktopServices, QTextCursor, QTextOption, QWheelEvent
from PySide6.QtWidgets import QFrame, QTextBrowser, QTextEdit, QWidget

from app.widgets.markdown import SafeDocument, TextStyle, fill, opens_in_browser


class ProseView(QTextBrowser):
    """A text view that reports its height for a given width.

    Signals:
        The signals of QTextBrowser; `anchorClicked` is handled here.
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
        # A fixed width: the other modes repeat the layout whenever the height changes.
        self.setLineWrapMode(QTextEdit.LineWrapMode.FixedPixelWidth)
        self.viewport().setAutoFillBackground(False)
        self.setAcceptDrops(False)
        self.setTabChangesFocus(True)
        self.anchorClicked.connect(self._open)

    def show_markdown(self, text: str, look: TextStyle) -> None:
        """Show Markdown; keep the selection as far as possible."""
        # Positions instead of the cursor, which moves when the text is replaced.
        anchor, position = self.textCursor().anchor(), self.textCursor().position()
        linked = fill(self.document(), text, look)
        if anchor != position:
            self._select(anchor, position)
        # In the tab order only if there is a link; the message's button copies all text.
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus if linked else Qt.FocusPolicy.ClickFocus)

    def show_plain(self, text: str) -> None:
        """Show plain text."""
        self.setPlainText(text)
        self.setFocusPolicy(Qt.FocusPolicy.ClickFocus)

    def height_at(self, width: int) -> int:
        """Return the height of the text at a width of `width` pixels."""
        if width != self.lineWrapColumnOrWidth():
            self.setLineWrapColumnOrWidth(width)
        return ceil(self.document().size().height())

    def natural_width(self) -> int:
        """Return the width of the longest line in the current layout."""
        return ceil(self.document().idealWidth()) + 1

    def loadResource(self, _kind: int, _name: QUrl | str) -> Any:
        """Return an empty resource: nothing is loaded for a model's text."""
        return self.document().loadResource(_kind, _name)

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Leave the wheel to the conversation."""
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
