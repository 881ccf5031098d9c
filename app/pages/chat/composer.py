"""The input field of the chat: Enter sends, Shift+Enter inserts a line break; grows up to six lines.

Also edits an earlier message; the draft is kept meanwhile. The button is Send or Stop, as set by its owner.
"""

from __future__ import annotations

from math import ceil

from PySide6.QtCore import QMimeData, Qt, Signal
from PySide6.QtGui import QFocusEvent, QKeyEvent, QPainter, QPaintEvent, QPalette
from PySide6.QtWidgets import QFrame, QHBoxLayout, QPlainTextEdit, QPushButton, QToolButton, QVBoxLayout, QWidget

from app.theme import Theme
from app.widgets.tinted_label import TintedLabel

MOST_LINES = 6
_PAD = 8


class Composer(QWidget):
    """The input field and its button.

    Signals:
        sent(str): the user sent this text; the field is empty now.
        stop_asked: the button was pressed as Stop.
        recall_asked: Up was pressed in the empty field.
        edit_ended: editing an earlier message was completed or cancelled.
    """

    sent = Signal(str)
    stop_asked = Signal()
    recall_asked = Signal()
    edit_ended = Signal()

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._busy = self._stopping = self._editing = False
        self._possible = True
        self._aside = ""
        self._edit = _Edit(self)
        self._edit.setObjectName("composer")
        self._edit.setAccessibleName(self.tr("Message"))
        self._edit.setPlaceholderText(self.tr("Write a message"))
        self._edit.enter_pressed.connect(self._send)
        self._edit.up_pressed.connect(self._recall)
        self._edit.focus_changed.connect(self.update)
        self._edit.textChanged.connect(self._update_button)
        self._button = QPushButton(self)
        self._button.setObjectName("send")
        self._button.clicked.connect(self._press)
        # As wide as its longest text, so that the layout is stable.
        widths = [self._button.fontMetrics().horizontalAdvance(word) for word in self._words()]
        self._button.setMinimumWidth(max(widths) + 32)
        self._anew = self._make_anew(theme)
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(self._edit, 1)
        row.addWidget(self._button, 0, Qt.AlignmentFlag.AlignBottom)
        column = QVBoxLayout(self)
        column.setContentsMargins(_PAD + 4, _PAD, _PAD, _PAD)
        column.setSpacing(4)
        column.addWidget(self._anew)
        column.addLayout(row)
        self.setFocusProxy(self._edit)
        self._update_button()

    @property
    def text(self) -> str:
        """The text that was not sent yet."""
        return self._edit.toPlainText()

    def set_text(self, text: str) -> None:
        """Set the text and move the cursor to its end."""
        self._edit.setPlainText(text)
        self._edit.moveCursor(self._edit.textCursor().MoveOperation.End)

    @property
    def editing(self) -> bool:
        """Return whether an earlier message is being edited."""
        return self._editing

    def begin_edit(self, text: str) -> None:
        """Edit an earlier message; the current draft is kept."""
        if not self._editing:
            self._aside = self.text
        self._editing = True
        self._anew.show()
        self.set_text(text)
        self._edit.setFocus(Qt.FocusReason.OtherFocusReason)

    def end_edit(self) -> None:
        """End editing and restore the draft."""
        if self._editing:
            self._editing = False
            self._anew.hide()
            self.set_text(self._aside)
            self._aside = ""
            self.edit_ended.emit()

    def set_state(self, busy: bool, stopping: bool, possible: bool) -> None:
        """Set the state of the button.

        Args:
            busy: an answer is being generated: the button stops it, and Enter keeps the text for later.
            stopping: a stop was requested and is pending.
            possible: a model is available.
        """
        self._busy, self._stopping, self._possible = busy, stopping, possible
        self._update_button()

    def paintEvent(self, _event: QPaintEvent) -> None:
        """Paint a frame around the field and its button, in the accent color while the field has the focus."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(self._theme.color("accent" if self._edit.hasFocus() else "line"))
        painter.setBrush(self.palette().color(QPalette.ColorRole.Base))
        painter.drawRoundedRect(self.rect().toRectF().adjusted(0.5, 0.5, -0.5, -0.5), 10, 10)

    def _words(self) -> tuple[str, str, str]:
        return self.tr("Send"), self.tr("Stop"), self.tr("Stop now")

    def _update_button(self) -> None:
        send, stop, now = self._words()
        if self._stopping:
            text, explained = now, self.tr("End the process that answers; the model has to be loaded again (Esc)")
        elif self._busy:
            text, explained = stop, self.tr("End the answer here (Esc)")
        else:
            text, explained = send, self.tr("Send the message (Enter)")
        self._button.setText(text)
        self._button.setToolTip(explained)
        self._button.setEnabled(self._busy or (self._possible and bool(self.text.strip())))

    def _press(self) -> None:
        if self._busy:
            self.stop_asked.emit()
        else:
            self._send()

    def _send(self) -> None:
        text = self.text.strip()
        if text and self._possible and not self._busy:
            if not self._editing:
                self._edit.clear()
            self.sent.emit(text)
            self.end_edit()

    def _recall(self) -> None:
        if not self._editing and not self._busy:
            self.recall_asked.emit()

    def _make_anew(self, theme: Theme) -> QWidget:
        """Return the line above the field that is shown while editing."""
        box = QWidget(self)
        words = TintedLabel(theme, self.tr("Editing an earlier message; the original is kept as a branch"),
                            role="muted", wrap=True, parent=box)  # fmt: skip
        words.setObjectName("editing")
        cancel = QToolButton(box)
        cancel.setObjectName("cancel_edit")
        cancel.setText(self.tr("Cancel"))
        cancel.setToolTip(self.tr("Discard the changes (Esc)"))
        cancel.setAutoRaise(True)
        cancel.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        cancel.clicked.connect(self.end_edit)
        row = QHBoxLayout(box)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(words, 1)
        row.addWidget(cancel)
        box.hide()
        return box


class _Edit(QPlainTextEdit):
    """A text field with signals: enter_pressed, up_pressed (in the empty field), focus_changed."""

    enter_pressed = Signal()
    up_pressed = Signal()
    focus_changed = Signal()

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.viewport().setAutoFillBackground(False)
        self.setTabChangesFocus(True)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.document().documentLayout().documentSizeChanged.connect(self._grow)
        self._grow()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Send with Enter; Shift+Enter inserts a line break, Ctrl+Enter is left to the window."""
        held = event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            if held == Qt.KeyboardModifier.NoModifier:
                self.enter_pressed.emit()
                return
            if held == Qt.KeyboardModifier.ShiftModifier:
                self.insertPlainText("\n")
                self.ensureCursorVisible()
                return
            event.ignore()
            return
        if event.key() == Qt.Key.Key_Up and not self.toPlainText():
            self.up_pressed.emit()
            return
        super().keyPressEvent(event)

    def focusInEvent(self, event: QFocusEvent) -> None:
        """Report the focus, which the frame shows."""
        super().focusInEvent(event)
        self.focus_changed.emit()

    def focusOutEvent(self, event: QFocusEvent) -> None:
        """Report the focus, which the frame shows."""
        super().focusOutEvent(event)
        self.focus_changed.emit()

    def canInsertFromMimeData(self, source: QMimeData) -> bool:
        """Accept text only; a dropped folder is a model and is left to the window."""
        return source.hasText() and not source.hasUrls()

    def _grow(self) -> None:
        # The height of a plain text document is its number of lines, including wrapped ones.
        lines = max(1, round(self.document().size().height()))
        shown = min(lines, MOST_LINES)
        height = ceil(self.fontMetrics().lineSpacing() * shown + 2 * self.document().documentMargin())
        many = lines > MOST_LINES
        policy = Qt.ScrollBarPolicy.ScrollBarAsNeeded if many else Qt.ScrollBarPolicy.ScrollBarAlwaysOff
        self.setVerticalScrollBarPolicy(policy)
        self.setFixedHeight(height)
