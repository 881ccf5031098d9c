"""The line above the composer: the state or the problem of the conversation, and a button that resolves it."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QCoreApplication, Qt
from PySide6.QtGui import QPainter, QPaintEvent
from PySide6.QtWidgets import QHBoxLayout, QProgressBar, QPushButton, QVBoxLayout, QWidget

from app.pages.chat.answering import AnswerControl
from app.theme import Theme, mixed
from app.widgets.tinted_label import TintedLabel
from core.errors import BitwrightError


class ChatNotice(QWidget):
    """A message line, hidden if there is no message."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._role = "accent"
        self._act: Callable[[], object] | None = None
        self._label = TintedLabel(theme, wrap=True, parent=self)
        self._label.setObjectName("notice")
        self._button = QPushButton(self)
        self._button.setObjectName("notice_button")
        self._button.clicked.connect(self._press)
        self._bar = QProgressBar(self)
        self._bar.setTextVisible(False)
        self._bar.setFixedHeight(6)
        self._bar.setObjectName("notice_progress")
        self._bar.setAccessibleName(self.tr("Loading"))
        row = QHBoxLayout()
        row.setSpacing(16)
        row.addWidget(self._label, 1)
        row.addWidget(self._button)
        column = QVBoxLayout(self)
        column.setContentsMargins(12, 8, 8, 8)
        column.setSpacing(8)
        column.addLayout(row)
        column.addWidget(self._bar)
        self.hide()

    def show_message(
        self,
        text: str,
        button: str = "",
        act: Callable[[], object] | None = None,
        *,
        role: str = "accent",
        fraction: float | None = None,
    ) -> None:
        """Show a sentence and a button that calls `act`.

        Args:
            role: color of the mark at the side.
            fraction: progress from 0 to 1; below 0 if unknown; None for no progress bar.
        """
        self._role, self._act = role, act
        self._label.setText(text)
        self._button.setText(button)
        self._button.setVisible(bool(button))
        self._bar.setVisible(fraction is not None)
        if fraction is not None:
            self._bar.setRange(0, 0 if fraction < 0 else 1000)
            self._bar.setValue(round(1000 * max(0.0, fraction)))
        self.show()
        self.update()

    def paintEvent(self, _event: QPaintEvent) -> None:
        """Paint a background with a colored edge; the meaning does not depend on the color."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        color = self._theme.color(self._role)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(mixed(self._theme.color("surface"), color, 0.12))
        painter.drawRoundedRect(self.rect(), 6, 6)
        painter.setBrush(color)
        painter.drawRoundedRect(0, 0, 4, self.height(), 2, 2)

    def _press(self) -> None:
        if self._act is not None:
            self._act()


def show_notice(
    notice: ChatNotice,
    answering: AnswerControl,
    begin_new: Callable[[], object],
    refused: BitwrightError | None = None,
    dismiss: Callable[[], object] | None = None,
) -> None:
    """Show the current message of the conversation, or none.

    Args:
        notice: the line; answering: the state; begin_new: start a new conversation.
        refused: the reason why a picture was not attached, which `dismiss` removes.
    """
    session, last, state = answering.session, answering.conversation.last, answering.session.state
    if state == "loading":
        text, fraction = session.progress
        notice.show_message(text, _tr("Cancel"), answering.stop, fraction=fraction)
    elif refused is not None:
        notice.show_message(str(refused), _tr("Dismiss"), dismiss, role="warning")
    elif answering.unread is not None:
        button = _tr("Answer without pictures") if answering.asks_in_words else ""
        notice.show_message(str(answering.unread), button, answering.answer_without, role="warning")
    elif answering.problem is not None:
        notice.show_message(str(answering.problem), _tr("New conversation"), begin_new, role="warning")
    elif state not in ("answering", "measuring") and last is not None and last.role == "user":
        notice.show_message(_tr("Your last message has no answer yet."), _tr("Generate answer"), answering.answer)
    elif last is not None and last.figures is not None and last.figures.ended_by == "context":
        text = _tr("The conversation fills the context of the model.")
        notice.show_message(text, _tr("New conversation"), begin_new, role="warning")
    else:
        notice.hide()


def _tr(text: str) -> str:
    return QCoreApplication.translate("Notices", text)
