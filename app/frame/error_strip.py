"""The strip above the page: an error with a remedy, or a question with its answers. Never a dialog.

Shows a sentence, a hint and buttons, and announces them to a screen reader.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtGui import QPainter, QPaintEvent, QPalette
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QPushButton, QSizePolicy, QToolButton, QVBoxLayout, QWidget

from app.shared.context import Remedy
from app.theme import Theme, mixed
from app.widgets.announcement import announce
from core.errors import BitwrightError

_TINT = 0.14
_BAR = 4
_LONGEST = 900


class ErrorStrip(QFrame):
    """One message at a time. A new message replaces it, except that a question waits for its answer.

    Signals:
        closed: the strip was closed by its button, by Esc or by an answer.
    """

    closed = Signal()

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("error_strip")
        self.setAutoFillBackground(True)
        self._theme = theme
        self._role = "bad"
        self._asks = False
        self._waiting: tuple[BitwrightError, Remedy | None] | None = None
        self._buttons: list[QPushButton] = []
        self._icon = QLabel()
        self._message = _text("error_message")
        self._hint = _text("error_hint")
        font = self._message.font()
        font.setWeight(font.Weight.DemiBold)
        self._message.setFont(font)
        self._close = QToolButton()
        self._close.setObjectName("error_close")
        self._close.setAutoRaise(True)
        self._close.setAccessibleName(self.tr("Close this message"))
        self._close.setToolTip(self.tr("Close this message (Esc)"))
        self._close.clicked.connect(self.dismiss)
        self._lay_out()
        theme.changed.connect(self._paint_new)
        self._paint_new()
        self.hide()

    @property
    def asking(self) -> bool:
        """Return whether a question waits for its answer."""
        return self._asks

    @property
    def message(self) -> str:
        """The current message, "" if there is none."""
        return self._message.text() if not self.isHidden() else ""

    def show_error(self, error: BitwrightError, remedy: Remedy | None = None) -> None:
        """Show an error until it is closed or replaced; if a question is open, after its answer."""
        if self._asks:
            self._waiting = (error, remedy)
            return
        from app.shared.run.words import for_the_window  # late: not needed for the first paint

        self._show("bad", error.message, for_the_window(error.hint), [remedy] if remedy else [])

    def show_warning(self, message: str, hint: str = "", remedy: Remedy | None = None) -> None:
        """Show a warning."""
        if not self._asks:
            self._show("warning", message, hint, [remedy] if remedy else [])

    def ask(self, question: str, hint: str, answers: Sequence[Remedy]) -> None:
        """Show a question until it is answered. Esc and the close button give no answer."""
        self._asks = True
        self._show("warning", question, hint, answers)
        self._buttons[0].setFocus(Qt.FocusReason.OtherFocusReason)

    def dismiss(self) -> None:
        """Close the message; an error that arrived during a question is shown next."""
        if self.isHidden():
            return
        self._asks = False
        self.hide()
        self.closed.emit()
        if self._waiting is not None:
            error, remedy = self._waiting
            self._waiting = None
            self.show_error(error, remedy)

    def press_remedy(self) -> None:
        """Press the first button."""
        if self._buttons and not self.isHidden():
            self._buttons[0].click()

    def paintEvent(self, event: QPaintEvent) -> None:
        super().paintEvent(event)
        painter = QPainter(self)
        left = 0 if self.layoutDirection() == Qt.LayoutDirection.LeftToRight else self.width() - _BAR
        painter.fillRect(left, 0, _BAR, self.height(), self._theme.color(self._role))

    def _lay_out(self) -> None:
        words = QVBoxLayout()
        words.setSpacing(2)
        words.addWidget(self._message)
        words.addWidget(self._hint)
        self._answers = QHBoxLayout()
        self._answers.setSpacing(8)
        row = QHBoxLayout(self)
        row.setContentsMargins(16, 8, 8, 8)
        row.setSpacing(12)
        row.addWidget(self._icon, 0, Qt.AlignmentFlag.AlignVCenter)
        row.addLayout(words, 1)
        row.addLayout(self._answers)
        row.addWidget(self._close, 0, Qt.AlignmentFlag.AlignVCenter)

    def _show(self, role: str, message: str, hint: str, answers: Sequence[Remedy]) -> None:
        self._role = role
        self._message.setText(_cut(message))
        self._hint.setText(_cut(hint))
        self._hint.setVisible(bool(hint))
        for button in self._buttons:
            self._answers.removeWidget(button)
            button.hide()
            button.deleteLater()  # deferred, as it may be the button that was pressed
        self._buttons = [self._button(number, answer) for number, answer in enumerate(answers)]
        self._paint_new()
        self.show()
        announce(self, f"{message} {hint}".strip(), urgent=True)

    def _button(self, number: int, answer: Remedy) -> QPushButton:
        button = QPushButton(answer.text, self)
        button.setObjectName("error_remedy" if number == 0 else f"error_remedy_{number}")
        button.setAutoDefault(True)
        button.clicked.connect(self._answered(answer.act))
        self._answers.addWidget(button)
        return button

    def _answered(self, act: Callable[[], object]) -> Callable[[], None]:
        def answer() -> None:
            self.dismiss()
            act()

        return answer

    def _paint_new(self) -> None:
        palette = QPalette()
        ground = palette.color(QPalette.ColorRole.Window)
        palette.setColor(QPalette.ColorRole.Window, mixed(ground, self._theme.color(self._role), _TINT))
        self.setPalette(palette)
        self._icon.setPixmap(self._theme.icon("warning", self._role).pixmap(QSize(20, 20)))
        self._close.setIcon(self._theme.icon("close"))
        self.update()


def _text(name: str) -> QLabel:
    label = QLabel()
    label.setObjectName(name)
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setWordWrap(True)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    label.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
    return label


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
