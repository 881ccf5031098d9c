"""A message and both answers, side by side, with statistics and differences.

`TurnList` sets the width and asks for the height.
"""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QWidget

from app.pages.chat.comparison import highlights, turns
from app.pages.chat.comparison.highlights import HighlightColors
from app.pages.chat.comparison.reply_figures import ReplyFigures
from app.pages.chat.comparison.turns import Reply, Turn
from app.pages.chat.message_footer import caption_of
from app.pages.chat.message_view import MessageView
from app.pages.chat.pictures.library import PictureLibrary
from app.theme import Theme, mixed
from app.widgets.tinted_label import TintedLabel

GAP = 16
"""Distance between the columns in pixels."""
_SPACE = 8


class TurnView(QWidget):
    """A turn.

    Signals:
        resized: its height changed.
        measure_asked(int): the perplexity measurement of this side should start or stop.
    """

    resized = Signal()
    measure_asked = Signal(int)

    def __init__(self, theme: Theme, pictures: PictureLibrary, turn: Turn, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme, self.turn = theme, turn
        self._marked, self._unmarked = True, False
        self.setObjectName("turn")
        self._question = MessageView(theme, True, self)
        if turn.pictures:
            self._question.set_pictures(turn.pictures, pictures)
        if turn.question:
            self._question.set_text(turn.question)
        self._question.resized.connect(self.resized)
        self._words = TintedLabel(theme, role="muted", wrap=True, parent=self)
        self._words.setObjectName("comparison_verdict")
        self._answers = (MessageView(theme, False, self), MessageView(theme, False, self))
        self._figures = (ReplyFigures(theme, "A", self), ReplyFigures(theme, "B", self))
        self._shown = ["", ""]
        self._finished = [False, False]
        for place, (answer, figures) in enumerate(zip(self._answers, self._figures, strict=True)):
            answer.setObjectName(f"answer_{'AB'[place]}")
            answer.resized.connect(self.resized)
            figures.measure_asked.connect(lambda place=place: self.measure_asked.emit(place))
            self.show_reply(place)
        self.show_comparison(True)

    @property
    def answers(self) -> tuple[MessageView, MessageView]:
        """The bubbles of both answers."""
        return self._answers

    @property
    def figures(self) -> tuple[ReplyFigures, ReplyFigures]:
        """The statistics of both answers."""
        return self._figures

    @property
    def verdict(self) -> str:
        """The text about the differences."""
        return self._words.text()

    def show_reply(self, place: int, live_speed: float = 0.0) -> None:
        """Show the current answer of the side `place`."""
        reply, answer = self.turn.replies[place], self._answers[place]
        if reply.text != self._shown[place]:
            new = reply.text.removeprefix(self._shown[place])
            if reply.text.startswith(self._shown[place]) and not reply.done:
                answer.append(new)
            else:
                answer.set_text(reply.text)
            self._shown[place] = reply.text
        if reply.thinking:
            spent = reply.figures.thinking_seconds if reply.figures is not None else 0.0
            answer.set_thinking(reply.thinking, spent, not reply.text and not reply.done)
        if reply.done and not self._finished[place]:
            self._finished[place] = True
            answer.finish()
        answer.setVisible(bool(reply.text) or not reply.problem)
        answer.footer.set_caption(_caption(reply), caption_of(reply.figures)[1])
        answer.setAccessibleName(self.tr("Answer of {model}").format(model=reply.label))
        self._figures[place].show_reply(reply, live_speed)
        self.resized.emit()

    def show_status(self, text: str) -> None:
        """Show the activity while there is no comparison."""
        if self.turn.comparison is None:
            self._set_message(text, "muted")

    def show_comparison(self, marked: bool) -> None:
        """Show the differences, and highlight them if `marked`."""
        self._marked, self._unmarked = marked, True
        if self.turn.comparison is not None:
            self._set_message(*turns.verdict(self.turn.comparison))
        self.resized.emit()

    def update_style(self) -> None:
        """Apply the current colors of the theme."""
        for view in (self._question, *self._answers):
            view.update_style()
        self._mark()  # the highlights refer to positions in the documents, which were filled again

    def place(self, width: int) -> int:
        """Lay out for `width` pixels and return the height."""
        y = self._question.place(width)
        self._question.setGeometry(0, 0, width, y)
        y += _SPACE
        height = max(self._words.heightForWidth(width), self._words.fontMetrics().height())
        self._words.setGeometry(0, y, width, height)
        y += height + _SPACE
        column = (width - GAP) // 2
        places = (width - column, 0) if self.isRightToLeft() else (0, width - column)
        end = y
        for answer, x in zip(self._answers, places, strict=True):
            if not answer.isHidden():
                high = answer.place(column)
                answer.setGeometry(x, y, column, high)
                end = max(end, y + high + 4)
        bottom = end
        for answer, figures, x in zip(self._answers, self._figures, places, strict=True):
            # Statistics are aligned for comparison; an error takes the place of its answer.
            top = y if answer.isHidden() else end
            high = figures.place(column - 4)
            figures.setGeometry(x + 4, top, column - 4, high)
            bottom = max(bottom, top + high)
        if self._unmarked:  # highlights need the order of the texts, which is known after the layout
            self._unmarked = False
            self._mark()
        return bottom

    def _set_message(self, text: str, role: str) -> None:
        if text != self._words.text():
            self._words.setText(text)
            self.resized.emit()
        self._words.set_role(role)

    def _mark(self) -> None:
        found = self.turn.comparison
        for number, answer in enumerate(self._answers):
            if found is None or not self._marked or found.equal:
                highlights.unmark(answer, answer.thinking)
                continue
            text = self.turn.replies[number].text.strip()
            highlights.mark(answer, text, found.only[number], found.first[number], self._tints(), answer.thinking)

    def _tints(self) -> HighlightColors:
        ground, tint = self._theme.color("surface"), self._theme.color("warning")
        strong = 0.45 if self._theme.dark else 0.38
        return HighlightColors(
            mixed(ground, tint, 0.2 if self._theme.dark else 0.13), mixed(ground, tint, strong), tint
        )


def _caption(reply: Reply) -> str:
    figures = reply.figures
    if figures is None:
        return reply.label
    counted = f"{figures.tokens:,} tokens" if figures.tokens != 1 else "1 token"
    endings = {
        "length": "stopped at max tokens",
        "context": "stopped, context is full",
        "stopped": "stopped",
        "failed": "interrupted",
    }
    dropped = f"without the {figures.dropped_messages} oldest messages" if figures.dropped_messages else ""
    return ", ".join(filter(None, (f"{reply.label}: {counted}", endings.get(figures.ended_by, ""), dropped)))
