"""The bubbles of one conversation, kept in line with it: questions, the answer that is coming, and earlier ones.

Changes the conversation (`app.models.conversation`) and its bubbles together; knows nothing of who answers.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from PySide6.QtCore import QTimer, Signal
from PySide6.QtWidgets import QWidget

from app.models.conversation import Conversation, Figures, Message
from app.pages.chat.message_footer import caption_of
from app.pages.chat.message_view import MessageView
from app.pages.chat.transcript import Transcript
from app.theme import Theme

_BUILD_SECONDS = 0.03


class ConversationView(Transcript):
    """A transcript of a conversation.

    Signals:
        regenerate_asked: the user wants another answer to the last question.
        switched: other messages are shown than before.
    """

    regenerate_asked = Signal()
    switched = Signal()

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(theme, parent)
        self._talk = Conversation()
        self._answer: tuple[Message, MessageView] | None = None
        self._unbuilt: list[Message] = []
        self._later = QTimer(self, singleShot=True, interval=0)
        self._later.timeout.connect(self._build_some)

    @property
    def talk(self) -> Conversation:
        """What is shown."""
        return self._talk

    @property
    def answering(self) -> bool:
        """Whether an answer is coming."""
        return self._answer is not None

    def show_talk(self, talk: Conversation) -> None:
        """Show a conversation from now on."""
        self._talk = talk
        self.clear()
        self._unbuilt = talk.path()
        self.to_end()
        self._build_some()

    def ask(self, text: str) -> None:
        """Add what the user says."""
        self._build_some(all_of_them=True)
        self._add_bubble(self._talk.add("user", text))
        self.to_end()

    def begin_answer(self, sampling: Mapping[str, Any]) -> None:
        """Add an empty answer, to be filled by `append_piece`."""
        self._build_some(all_of_them=True)
        message = self._talk.add("assistant", "")
        message.sampling = dict(sampling)
        self._answer = (message, self._add_bubble(message))

    def append_piece(self, piece: str) -> None:
        """Add to the answer that is coming."""
        if self._answer is not None:
            message, view = self._answer
            message.text += piece
            view.append(piece)

    def end_answer(self, figures: Figures) -> None:
        """The answer is as long as it will be. One that was ended before its first word is taken away."""
        if self._answer is None:
            return
        (message, view), self._answer = self._answer, None
        message.figures = figures
        view.finish()
        if not message.text.strip() and figures.ended_by != "end":
            self._talk.drop_last()
            self.show_talk(self._talk)

    def rewind(self) -> None:
        """Take the last answer away for another one; it stays among the answers to its question."""
        self._build_some(all_of_them=True)
        self._talk.rewind()
        self.remove_last()

    def unwind(self) -> None:
        """Show the newest answer to the last question again, where there is one: no other came."""
        last = self._talk.last
        if last is not None and last.role == "user":
            self._talk.show(last)
            if self._talk.last is not last:
                self.show_talk(self._talk)

    def update_footers(self, quiet: bool) -> None:
        """Say what the answers cost, and offer under the last one what can be done; nothing where not `quiet`."""
        path = self._talk.path()
        for message, view in zip(path, self.messages, strict=False):
            last = message is path[-1] and message.role == "assistant"
            others = self._talk.siblings(message) if last else [message]
            view.footer.set_caption(*caption_of(message.figures))
            view.footer.set_place(others.index(message), len(others) if quiet else 1)
            view.footer.set_regenerate(last and quiet)

    def _build_some(self, all_of_them: bool = False) -> None:
        """Make bubbles for as long as nobody notices; a long conversation is shown over several rounds of the loop."""
        self._later.stop()
        began = time.monotonic()
        while self._unbuilt and (all_of_them or time.monotonic() - began < _BUILD_SECONDS):
            self._add_bubble(self._unbuilt.pop(0))
        if self._unbuilt:
            self._later.start()
        elif not all_of_them:
            self.switched.emit()

    def _add_bubble(self, message: Message) -> MessageView:
        view = self.add(message.role == "user", message.text)
        view.regenerate_asked.connect(self.regenerate_asked)
        view.other_asked.connect(self._show_other)
        return view

    def _show_other(self, step: int) -> None:
        last = self._talk.last
        if last is None or self._answer is not None:
            return
        others = self._talk.siblings(last)
        place = others.index(last) + step
        if 0 <= place < len(others):
            self._talk.show(others[place])
            self.remove_last()
            self._add_bubble(others[place])
            self.switched.emit()
