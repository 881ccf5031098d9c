"""A block of code in a message: monospaced text on its own background, the language, and a button to copy the code.

Long lines scroll horizontally. The code is highlighted by `app.widgets.highlight` when the block is complete.
"""

from __future__ import annotations

from math import ceil

from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import (
    QFontDatabase,
    QGuiApplication,
    QPainter,
    QPaintEvent,
    QTextCharFormat,
    QTextCursor,
    QWheelEvent,
)
from PySide6.QtWidgets import QFrame, QHBoxLayout, QTextEdit, QToolButton, QVBoxLayout, QWidget

from app.theme import Theme
from app.widgets.highlight import Kind, spans
from app.widgets.markdown import SafeDocument
from app.widgets.tinted_label import TintedLabel
from app.widgets.tints import code_color

_RADIUS = 6
_PAD = 8
_ROLES: dict[Kind, str] = {"comment": "muted", "string": "good", "number": "warning", "keyword": "accent"}


class CodeView(QWidget):
    """A block of code."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._text = self._language = ""
        self._colored = False
        self._label = TintedLabel(theme, role="muted", parent=self)
        self._copy = QToolButton(self)
        self._copy.setText(self.tr("Copy"))
        self._copy.setAccessibleName(self.tr("Copy this code"))
        self._copy.setObjectName("copy_code")
        self._copy.setAutoRaise(True)
        self._copy.clicked.connect(self._to_clipboard)
        self._body = _Body(self)
        head = QHBoxLayout()
        head.addWidget(self._label)
        head.addStretch()
        head.addWidget(self._copy)
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(_PAD, 2, 2, _PAD)
        self._column.setSpacing(0)
        self._column.addLayout(head)
        self._column.addWidget(self._body)

    @property
    def text(self) -> str:
        """The code that the button copies."""
        return self._text

    def show_code(self, text: str, language: str) -> None:
        """Show code that may still grow; only new text is laid out."""
        if text == self._text:
            pass
        elif self._text and text.startswith(self._text):
            cursor = QTextCursor(self._body.document())
            cursor.movePosition(QTextCursor.MoveOperation.End)
            cursor.insertText(text[len(self._text) :], QTextCharFormat())
        else:
            self._body.setPlainText(text)
        self._colored = self._colored and (text, language) == (self._text, self._language)
        self._text, self._language = text, language
        self._label.setText(language or self.tr("code"))
        self._body.setAccessibleName(self.tr("Code, {language}").format(language=language or self.tr("no language")))

    def focus_widgets(self) -> list[QWidget]:
        """The focusable widgets in reading order."""
        return [self._copy]

    def color(self) -> None:
        """Highlight comments, strings, numbers and keywords of complete code."""
        if self._colored:
            return
        self._colored = True
        cursor = QTextCursor(self._body.document())
        cursor.beginEditBlock()
        cursor.select(QTextCursor.SelectionType.Document)
        cursor.setCharFormat(QTextCharFormat())
        for span in spans(self._text, self._language):
            format = QTextCharFormat()
            format.setForeground(self._theme.color(_ROLES[span.kind]))
            cursor.setPosition(span.start)
            cursor.setPosition(span.start + span.length, QTextCursor.MoveMode.KeepAnchor)
            cursor.setCharFormat(format)
        cursor.endEditBlock()

    def update_style(self) -> None:
        """Apply the colors of the current theme."""
        if self._colored:
            self._colored = False
            self.color()
        self.update()

    def height_at(self, width: int) -> int:
        """Return the height for all lines, with the scroll bar if lines are wider than `width`."""
        margins = self._column.contentsMargins()
        self._body.fit(width - margins.left() - margins.right())
        return self._column.sizeHint().height()

    def natural_width(self) -> int:
        """Return the width of the longest line."""
        margins = self._column.contentsMargins()
        return ceil(self._body.document().idealWidth()) + margins.left() + margins.right() + 2

    def paintEvent(self, _event: QPaintEvent) -> None:
        """Paint the background."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(self._theme.color("line"))
        painter.setBrush(code_color(self._theme, self.palette()))
        painter.drawRoundedRect(QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5), _RADIUS, _RADIUS)

    def _to_clipboard(self) -> None:
        QGuiApplication.clipboard().setText(self._text)


class _Body(QTextEdit):
    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        document = SafeDocument(self)
        document.setDocumentMargin(0)
        document.setUndoRedoEnabled(False)
        document.setDefaultFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        self.setDocument(document)
        self.setFont(document.defaultFont())
        self.setReadOnly(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setLineWrapMode(QTextEdit.LineWrapMode.NoWrap)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.viewport().setAutoFillBackground(False)
        self.setAcceptDrops(False)
        self.setTabChangesFocus(True)
        self.setFocusPolicy(Qt.FocusPolicy.ClickFocus)

    def fit(self, width: int) -> None:
        """Set the height for all lines, with the scroll bar if lines are wider than `width`."""
        document = self.document()
        height = ceil(document.size().height())
        if document.idealWidth() > width:
            height += self.horizontalScrollBar().sizeHint().height()
        if height != self.height():
            self.setFixedHeight(height)

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Scroll horizontally only; vertical scrolling is left to the conversation."""
        if event.angleDelta().x() and not event.angleDelta().y():
            super().wheelEvent(event)
        else:
            event.ignore()
