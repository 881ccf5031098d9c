"""The input field of the chat: Enter sends, Shift+Enter inserts a line break; grows up to six lines.

Pictures can be attached, pasted and dropped; they are shown above the text. Also edits an earlier message; the draft is
kept meanwhile. The button is Send or Stop, as set by its owner.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from PySide6.QtCore import QMimeData, QSize, Qt, Signal
from PySide6.QtGui import QFocusEvent, QKeyEvent, QPainter, QPaintEvent, QPalette, QPen
from PySide6.QtWidgets import (
    QFileDialog,
    QFrame,
    QHBoxLayout,
    QPlainTextEdit,
    QPushButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from app.pages.chat.pictures.attachments import Attachments
from app.pages.chat.pictures.library import PictureLibrary, PictureSource
from app.pages.chat.pictures.sources import FILE_PATTERNS, has_pictures, sources_in
from app.theme import Theme
from app.widgets.note import Note
from app.widgets.shortcut_keys import shown_keys
from app.widgets.tinted_label import TintedLabel
from core.errors import BadInput

MOST_LINES = 6
ATTACH_KEYS = "Ctrl+Shift+P"
_PAD = 8


class Composer(QWidget):
    """The input field and its button.

    Signals:
        sent(str, object): the user sent this text and these pictures, a tuple of paths; the field is empty now.
        stop_asked: the button was pressed as Stop.
        recall_asked: Up was pressed in the empty field.
        edit_ended: editing an earlier message was completed or cancelled.
        pictures_edited: the user attached or removed pictures.
        refused(object): a picture was not attached; the `BitwrightError` with the reason.
    """

    sent = Signal(str, object)
    stop_asked = Signal()
    recall_asked = Signal()
    edit_ended = Signal()
    pictures_edited = Signal()
    refused = Signal(object)

    def __init__(self, theme: Theme, library: PictureLibrary, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._busy = self._stopping = self._editing = self._dropping = False
        self._possible = True
        self._aside: tuple[str, tuple[str, ...]] = ("", ())
        self._blind = ""
        self._attachments = Attachments(theme, library, self)
        self._attachments.changed.connect(self._note_pictures)
        self._attachments.edited.connect(self.pictures_edited)
        self._attachments.failed.connect(self.refused)
        self._attachments.emptied.connect(self._focus_edit)
        self._not_read = Note(theme, parent=self)
        self._not_read.setObjectName("pictures_not_read")
        self._attach = self._make_attach()
        self._edit = _Edit(self)
        self._edit.setObjectName("composer")
        self._edit.setAccessibleName(self.tr("Message"))
        self._edit.setPlaceholderText(self.tr("Write a message"))
        self._edit.enter_pressed.connect(self._send)
        self._edit.up_pressed.connect(self._recall)
        self._edit.focus_changed.connect(self.update)
        self._edit.textChanged.connect(self._update_button)
        self._edit.pictures_pasted.connect(self.attach)
        self._button = QPushButton(self)
        self._button.setObjectName("send")
        self._button.clicked.connect(self._press)
        # As wide as its longest text, so that the layout is stable.
        widths = [self._button.fontMetrics().horizontalAdvance(word) for word in self._words()]
        self._button.setMinimumWidth(max(widths) + 32)
        self._anew = self._make_anew(theme)
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(self._attach, 0, Qt.AlignmentFlag.AlignBottom)
        row.addWidget(self._edit, 1)
        row.addWidget(self._button, 0, Qt.AlignmentFlag.AlignBottom)
        column = QVBoxLayout(self)
        column.setContentsMargins(_PAD + 4, _PAD, _PAD, _PAD)
        column.setSpacing(4)
        column.addWidget(self._anew)
        column.addWidget(self._attachments)
        column.addWidget(self._not_read)
        column.addLayout(row)
        self.setFocusProxy(self._edit)
        theme.changed.connect(self._update_icon)
        self._update_icon()
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
    def pictures(self) -> tuple[str, ...]:
        """The paths of the pictures that were not sent yet."""
        return self._attachments.pictures

    @property
    def has_pictures(self) -> bool:
        """Return whether there are pictures, including those that are being attached."""
        return bool(self._attachments.tiles)

    def attach(self, sources: Sequence[PictureSource]) -> None:
        """Attach pictures: paths of files, or images; a reason against it is reported."""
        if self._blind:
            self.refused.emit(BadInput(self._blind, self.tr("Select a model that reads pictures.")))
        elif sources:
            self._attachments.attach(sources)

    def choose_pictures(self) -> None:
        """Let the user choose the files to attach."""
        if not self._attach.isEnabled():
            return
        dialog = QFileDialog(self, self.tr("Attach pictures"))
        dialog.setFileMode(QFileDialog.FileMode.ExistingFiles)
        dialog.setNameFilters(
            [self.tr("Pictures ({patterns})").format(patterns=FILE_PATTERNS), self.tr("All files (*)")]
        )
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.filesSelected.connect(self.attach)
        dialog.open()

    def set_blind(self, reason: str) -> None:
        """Set the reason why the model does not read pictures, as a sentence; "" if it does, or is not loaded yet.

        Pictures that are attached already stay; they cannot be sent.
        """
        if reason != self._blind:
            self._blind = reason
            self._attach.setEnabled(not reason)
            self._attach.setToolTip(reason or self._attach_words())
            self._note_pictures()

    def set_dropping(self, dropping: bool) -> None:
        """Show that pictures can be dropped now."""
        if dropping != self._dropping:
            self._dropping = dropping
            self.update()

    @property
    def editing(self) -> bool:
        """Return whether an earlier message is being edited."""
        return self._editing

    def begin_edit(self, text: str, pictures: Sequence[str] = ()) -> None:
        """Edit an earlier message; the current draft is kept."""
        if not self._editing:
            self._aside = self.text, self.pictures
        self._editing = True
        self._anew.show()
        self.set_text(text)
        self._attachments.set_pictures(pictures)
        self._edit.setFocus(Qt.FocusReason.OtherFocusReason)

    def end_edit(self) -> None:
        """End editing and restore the draft."""
        if self._editing:
            self._editing = False
            self._anew.hide()
            text, pictures = self._aside
            self._aside = ("", ())
            self.set_text(text)
            self._attachments.set_pictures(pictures)
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
        color = self._theme.color("accent" if self._dropping or self._edit.hasFocus() else "line")
        painter.setPen(QPen(color, 2 if self._dropping else 1))
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
        self._button.setEnabled(self._busy or (self._possible and self._sendable))

    @property
    def _sendable(self) -> bool:
        """Return whether there is something to send, and all of it can be sent."""
        if self._attachments.pending or (self.pictures and self._blind):
            return False
        return bool(self.text.strip() or self.pictures)

    def _note_pictures(self) -> None:
        blind = self._blind if self.has_pictures else ""
        words = self.tr("{reason} Remove the pictures or select another model.").format(reason=blind) if blind else ""
        self._not_read.set_text(words, "warning")
        self._update_button()

    def _focus_edit(self) -> None:
        self._edit.setFocus(Qt.FocusReason.OtherFocusReason)

    def _update_icon(self) -> None:
        self._attach.setIcon(self._theme.icon("picture"))

    def _press(self) -> None:
        if self._busy:
            self.stop_asked.emit()
        else:
            self._send()

    def _send(self) -> None:
        text, pictures = self.text.strip(), self.pictures
        if self._sendable and self._possible and not self._busy:
            if not self._editing:
                self._edit.clear()
                self._attachments.set_pictures(())
            self.sent.emit(text, pictures)
            self.end_edit()

    def _recall(self) -> None:
        if not self._editing and not self._busy:
            self.recall_asked.emit()

    def _make_attach(self) -> QToolButton:
        button = QToolButton(self)
        button.setObjectName("attach")
        button.setAutoRaise(True)
        button.setIconSize(QSize(20, 20))
        button.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        button.setAccessibleName(self.tr("Attach pictures"))
        button.setToolTip(self._attach_words())
        button.clicked.connect(self.choose_pictures)
        return button

    def _attach_words(self) -> str:
        return self.tr("Attach pictures ({keys}); they can also be pasted or dropped here").format(
            keys=shown_keys(ATTACH_KEYS)
        )

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
    """A text field with signals: enter_pressed, up_pressed (in the empty field), focus_changed, pictures_pasted."""

    enter_pressed = Signal()
    up_pressed = Signal()
    focus_changed = Signal()
    pictures_pasted = Signal(list)

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
        """Accept text and pictures only; a dropped folder is a model and is left to the window."""
        return has_pictures(source) or (source.hasText() and not source.hasUrls())

    def insertFromMimeData(self, source: QMimeData) -> None:
        """Insert text; report pictures."""
        if has_pictures(source):
            self.pictures_pasted.emit(sources_in(source))
        else:
            super().insertFromMimeData(source)

    def _grow(self) -> None:
        # The height of a plain text document is its number of lines, including wrapped ones.
        lines = max(1, round(self.document().size().height()))
        shown = min(lines, MOST_LINES)
        height = ceil(self.fontMetrics().lineSpacing() * shown + 2 * self.document().documentMargin())
        many = lines > MOST_LINES
        policy = Qt.ScrollBarPolicy.ScrollBarAsNeeded if many else Qt.ScrollBarPolicy.ScrollBarAlwaysOff
        self.setVerticalScrollBarPolicy(policy)
        self.setFixedHeight(height)
