"""The row below a message: what an answer cost, and small buttons to copy it, to ask again, to see other answers."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtGui import QPalette
from PySide6.QtWidgets import QHBoxLayout, QToolButton, QWidget

from app.models.conversation import Figures
from app.theme import Theme
from app.widgets.tinted_label import TintedLabel
from core.wording import duration, figure


class MessageFooter(QWidget):
    """Caption and buttons of one message.

    Signals:
        copy_asked: the message should go to the clipboard.
        regenerate_asked: the user wants another answer.
        other_asked(int): the answer before (-1) or after (1) this one should be shown.
    """

    copy_asked = Signal()
    regenerate_asked = Signal()
    other_asked = Signal(int)

    def __init__(self, theme: Theme, mine: bool, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._caption = TintedLabel(theme, role="muted", parent=self)
        self._caption.setObjectName("caption")
        self._before = self._button("\N{SINGLE LEFT-POINTING ANGLE QUOTATION MARK}", self.tr("Show the answer before"))
        self._before.setObjectName("answer_before")
        self._place = TintedLabel(theme, role="muted", parent=self)
        self._after = self._button("\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}", self.tr("Show the next answer"))
        self._after.setObjectName("answer_after")
        self._again = self._button(self.tr("Regenerate"), self.tr("Ask for another answer"))
        self._again.setObjectName("regenerate")
        self._copy = self._button(self.tr("Copy"), self.tr("Copy this message"))
        self._copy.setObjectName("copy")
        row = QHBoxLayout(self)
        row.setContentsMargins(4, 0, 0, 0)
        row.setSpacing(2)
        row.addWidget(self._caption)
        row.addStretch()
        for widget in (self._before, self._place, self._after, self._again, self._copy):
            row.addWidget(widget)
        self._before.clicked.connect(lambda: self.other_asked.emit(-1))
        self._after.clicked.connect(lambda: self.other_asked.emit(1))
        self._again.clicked.connect(self.regenerate_asked)
        self._copy.clicked.connect(self.copy_asked)
        self.set_place(0, 1)
        self.set_regenerate(False)
        self.restyle()

    def set_caption(self, text: str, explained: str = "") -> None:
        """A few words on the left; `explained` is the longer form of them."""
        self._caption.setText(text)
        self._caption.setToolTip(explained)

    def set_place(self, index: int, count: int) -> None:
        """Say that this is answer `index` (from 0) of `count` to the same question."""
        for widget in (self._before, self._place, self._after):
            widget.setVisible(count > 1)
        self._place.setText(self.tr("{number} of {count}").format(number=index + 1, count=count))
        self._before.setEnabled(index > 0)
        self._after.setEnabled(index + 1 < count)

    def set_regenerate(self, offered: bool) -> None:
        """Whether another answer can be asked for."""
        self._again.setVisible(offered)

    def focus_widgets(self) -> list[QWidget]:
        """The buttons in reading order."""
        return [self._before, self._after, self._again, self._copy]

    def restyle(self) -> None:
        """Take the colours of the theme as it is now."""
        muted = self._theme.color("muted")
        for widget in (self._before, self._after, self._again, self._copy):
            palette = QPalette()
            for group in (QPalette.ColorGroup.Active, QPalette.ColorGroup.Inactive):
                palette.setColor(group, QPalette.ColorRole.ButtonText, muted)
            widget.setPalette(palette)

    def _button(self, text: str, name: str) -> QToolButton:
        button = QToolButton(self)
        button.setText(text)
        button.setToolTip(name)
        button.setAccessibleName(name)
        button.setAutoRaise(True)
        return button


def caption_of(figures: Figures | None) -> tuple[str, str]:
    """What stands under an answer, short and at length; ("", "") for a question and for an answer that is coming."""
    if figures is None:
        return "", ""
    endings = {
        "length": "cut at the longest answer that is allowed",
        "context": "cut where the context is full",
        "stopped": "stopped",
        "failed": "cut off",
    }
    parts = [f"{figures.tokens:,} tokens"] if figures.tokens != 1 else ["1 token"]
    if figures.tokens_per_second:
        parts.append(f"{figure(figures.tokens_per_second)} a second")
    if not figures.tokens:
        parts = ["The model had nothing to say"] if figures.ended_by == "end" else []
    if figures.ended_by in endings:
        parts.append(endings[figures.ended_by])
    explained = (
        f"First token after {duration(figures.first_token_seconds)}, all in {duration(figures.seconds)}"
        if figures.seconds
        else ""
    )
    return ", ".join(parts), explained
