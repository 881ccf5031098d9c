"""The reasoning of a model before its answer, collapsed to one line: `Thought for 12 s`."""

from __future__ import annotations

from typing import Final

from PySide6.QtCore import QRect, QTimer, Signal
from PySide6.QtGui import QPainter, QPaintEvent, QPalette
from PySide6.QtWidgets import QWidget

from app.pages.chat.fold_button import FoldButton
from app.pages.chat.prose_view import ProseView
from app.theme import Theme
from app.widgets.markdown import TextStyle, clean
from core.wording import duration

_INDENT: Final = 12
_GAP: Final = 4
FLUSH_MS: Final = 100


class ThinkingView(QWidget):
    """A button and, if expanded, the text below it.

    Signals:
        resized: its height changed.
    """

    resized = Signal()

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._text = ""
        self._look: TextStyle | None = None
        self._button = FoldButton(self)
        self._button.setObjectName("thinking")
        self._button.setToolTip(self.tr("Reasoning of the model before the answer"))
        self._button.toggled.connect(self._fold)
        self._body = ProseView(self)
        self._body.setAccessibleName(self.tr("Reasoning"))
        self._body.hide()
        self._flush = QTimer(self, singleShot=True, interval=FLUSH_MS)
        self._flush.timeout.connect(self._show_text)
        self._fold(False)
        self.update_style()

    @property
    def text(self) -> str:
        """The complete text."""
        return self._text

    @property
    def words(self) -> str:
        """The text of the button."""
        return self._button.text()

    def set_text(self, text: str, look: TextStyle) -> None:
        """Set the text; growing text is shown a few times a second, and only while expanded."""
        self._text, self._look = text, look
        if self._button.isChecked() and not self._flush.isActive():
            self._flush.start()

    def set_duration(self, seconds: float, going: bool) -> None:
        """Show the duration so far (`going`) or in total."""
        spent = duration(seconds) if seconds >= 0.05 else ""
        if going:
            text = self.tr("Thinking, {time}").format(time=spent) if spent else self.tr("Thinking")
        else:
            text = self.tr("Thought for {time}").format(time=spent) if spent else self.tr("Thought")
        if text != self._button.text():
            self._button.setText(text)
            self._place_button()

    def focus_widgets(self) -> list[QWidget]:
        """Return the widgets in tab order."""
        return [self._button]

    def height_at(self, width: int) -> int:
        """Lay out for a width and return the height."""
        self._place_button()
        height = self._button.sizeHint().height()
        if self._button.isChecked():
            inner = max(40, width - _INDENT)
            text = self._body.height_at(inner)
            left = 0 if self.isRightToLeft() else _INDENT
            self._body.setGeometry(left, height + _GAP, inner, text)
            height += _GAP + text + _GAP
        return height

    def natural_width(self) -> int:
        """Return the width of the button."""
        return self._button.sizeHint().width()

    def update_style(self) -> None:
        """Apply the current colors of the theme."""
        muted = self._theme.color("muted")
        for widget, role in ((self._button, QPalette.ColorRole.ButtonText), (self._body, QPalette.ColorRole.Text)):
            palette = QPalette()
            for group in (QPalette.ColorGroup.Active, QPalette.ColorGroup.Inactive):
                palette.setColor(group, role, muted)
            widget.setPalette(palette)
        if self._button.isChecked():
            self._show_text()

    def paintEvent(self, _event: QPaintEvent) -> None:
        """Paint a vertical line beside the text, to set it apart."""
        if self._button.isChecked():
            painter = QPainter(self)
            painter.setPen(self._theme.color("line"))
            painter.setBrush(self._theme.color("line"))
            body = self._body.geometry()
            x = self.width() - 3 if self.isRightToLeft() else 2
            painter.drawRect(QRect(x, body.top(), 1, body.height()))

    def _fold(self, opened: bool) -> None:
        self._body.setVisible(opened)
        if opened:
            self._show_text()
        else:
            self.resized.emit()

    def _show_text(self) -> None:
        if self._look is None:
            return
        self._body.show_markdown(clean(self._text).strip("\n"), self._look)
        self.resized.emit()

    def _place_button(self) -> None:
        hint = self._button.sizeHint()
        left = self.width() - hint.width() if self.isRightToLeft() else 0
        self._button.setGeometry(left, 0, hint.width(), hint.height())
