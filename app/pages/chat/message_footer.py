"""The row below a message: statistics of an answer, and buttons to copy, edit, regenerate, continue and switch."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtGui import QPalette
from PySide6.QtWidgets import QHBoxLayout, QToolButton, QWidget

from app.theme import Theme
from app.widgets.elided_label import ElidedLabel
from app.widgets.tinted_label import TintedLabel
from core.inference.generation.reply import Statistics
from core.wording import duration, figure


class MessageFooter(QWidget):
    """Caption and buttons of a message.

    Signals:
        copy_asked: the message should be copied.
        regenerate_asked: the user wants another answer.
        continue_asked: the user wants to continue this answer.
        edit_asked: the user wants to edit this message.
        other_asked(int): the previous (-1) or next (1) version of this message should be shown.
    """

    copy_asked = Signal()
    regenerate_asked = Signal()
    continue_asked = Signal()
    edit_asked = Signal()
    other_asked = Signal(int)

    def __init__(self, theme: Theme, mine: bool, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._caption = ElidedLabel(theme, role="muted", parent=self)
        self._caption.setObjectName("caption")
        before = self.tr("Previous version") if mine else self.tr("Previous answer")
        after = self.tr("Next version") if mine else self.tr("Next answer")
        self._before = self._button("\N{SINGLE LEFT-POINTING ANGLE QUOTATION MARK}", before)
        self._before.setObjectName("answer_before")
        self._place = TintedLabel(theme, role="muted", parent=self)
        self._after = self._button("\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}", after)
        self._after.setObjectName("answer_after")
        self._again = self._button(self.tr("Regenerate"), self.tr("Generate another answer"))
        self._again.setObjectName("regenerate")
        self._more = self._button(self.tr("Continue"), self.tr("Continue this answer"))
        self._more.setObjectName("continue")
        self._edit = self._button(self.tr("Edit"), self.tr("Edit this message; the original is kept as a branch"))
        self._edit.setObjectName("edit")
        self._copy = self._button(self.tr("Copy"), self.tr("Copy this message"))
        self._copy.setObjectName("copy")
        row = QHBoxLayout(self)
        row.setContentsMargins(4, 0, 0, 0)
        row.setSpacing(2)
        row.addWidget(self._caption, 1)
        for widget in (self._before, self._place, self._after, *self.focus_widgets()[2:]):
            row.addWidget(widget)
        self._before.clicked.connect(lambda: self.other_asked.emit(-1))
        self._after.clicked.connect(lambda: self.other_asked.emit(1))
        self._again.clicked.connect(self.regenerate_asked)
        self._more.clicked.connect(self.continue_asked)
        self._edit.clicked.connect(self.edit_asked)
        self._copy.clicked.connect(self.copy_asked)
        self.set_place(0, 1)
        self.offer()
        self.update_style()

    def set_caption(self, text: str, explained: str = "") -> None:
        """Set the text on the left; `explained` is its tooltip."""
        self._caption.set_text(text, explained)

    def set_place(self, index: int, count: int) -> None:
        """Show that this is version `index` (from 0) of `count`."""
        for widget in (self._before, self._place, self._after):
            widget.setVisible(count > 1)
        self._place.setText(self.tr("{number} of {count}").format(number=index + 1, count=count))
        self._before.setEnabled(index > 0)
        self._after.setEnabled(index + 1 < count)

    def offer(self, *, again: bool = False, more: bool = False, edit: bool = False) -> None:
        """Show the buttons to regenerate (`again`), to continue (`more`) and to edit."""
        self._again.setVisible(again)
        self._more.setVisible(more)
        self._edit.setVisible(edit)

    def focus_widgets(self) -> list[QWidget]:
        """Return the buttons in reading order."""
        return [self._before, self._after, self._more, self._again, self._edit, self._copy]

    def update_style(self) -> None:
        """Apply the current colors of the theme."""
        muted = self._theme.color("muted")
        for widget in self.focus_widgets():
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


def caption_of(figures: Statistics | None, model: str = "") -> tuple[str, str]:
    """Return the caption of an answer and its tooltip; ("", "") without statistics.

    Args:
        figures: statistics of the answer.
        model: name of the model, if it should be shown.
    """
    if figures is None:
        return "", ""
    endings = {
        "length": "stopped at max tokens",
        "context": "stopped, context is full",
        "stopped": "stopped",
        "failed": "interrupted",
    }
    parts = [f"{figures.tokens:,} tokens"] if figures.tokens != 1 else ["1 token"]
    if figures.tokens_per_second:
        parts.append(f"{figure(figures.tokens_per_second)} tokens/s")
    if not figures.tokens:
        parts = ["Empty answer"] if figures.ended_by == "end" else []
    if figures.ended_by in endings:
        parts.append(endings[figures.ended_by])
    if model:
        parts.insert(0, model)
    return ", ".join(parts), "\n".join(_at_length(figures))


def _at_length(figures: Statistics) -> list[str]:
    lines = []
    if figures.seconds:
        lines.append(f"First token after {duration(figures.first_token_seconds)}, total {duration(figures.seconds)}")
    if figures.prompt_tokens:
        reused = f", {figures.cached_tokens:,} of them cached" if figures.cached_tokens else ""
        lines.append(f"{figures.prompt_tokens:,} prompt tokens{reused}")
    if figures.dropped_messages:
        lines.append(f"The {figures.dropped_messages} oldest messages did not fit and were omitted")
    if figures.note:
        lines.append(figures.note.rstrip("."))
    if figures.seed:
        lines.append(f"Seed {figures.seed}")
    return lines
