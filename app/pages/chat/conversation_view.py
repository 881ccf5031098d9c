"""The messages of a conversation: questions, the answer that is being generated, and branches.

Updates the conversation (`app.pages.chat.conversations.conversation`) and its widgets together.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from PySide6.QtCore import QTimer, Signal
from PySide6.QtWidgets import QWidget

from app.pages.chat.conversations.conversation import Conversation, Message
from app.pages.chat.message_footer import caption_of
from app.pages.chat.message_view import MessageView
from app.pages.chat.pictures.library import PictureLibrary
from app.pages.chat.transcript import Transcript
from app.theme import Theme
from core.codec import encode
from core.inference.generation.reply import Statistics
from core.inference.generation.settings import Sampling

_BUILD_SECONDS = 0.03
_CAN_GO_ON = ("length", "stopped", "failed")


@dataclass
class _PendingAnswer:
    """An answer that is being generated: its message, the start of its reasoning, and the text it continues."""

    message: Message
    view: MessageView
    before: Statistics | None = None
    began: float = 0.0
    thought: float = 0.0


class ConversationView(Transcript):
    """A transcript of a conversation.

    Signals:
        regenerate_asked: the user wants another answer to the last message.
        continue_asked: the user wants to continue the last answer.
        edit_asked(object): the user wants to edit this `Message`.
        switched: another conversation or branch is shown.
        branched: the user selected another branch.
    """

    regenerate_asked = Signal()
    continue_asked = Signal()
    edit_asked = Signal(object)
    switched = Signal()
    branched = Signal()

    def __init__(self, theme: Theme, pictures: PictureLibrary, parent: QWidget | None = None) -> None:
        super().__init__(theme, parent)
        self._pictures = pictures
        self._conversation = Conversation()
        self._coming: _PendingAnswer | None = None
        self._built: list[int] = []
        self._unbuilt: list[Message] = []
        self._marked: Message | None = None
        self._later = QTimer(self, singleShot=True, interval=0)
        self._later.timeout.connect(self._build_some)

    @property
    def conversation(self) -> Conversation:
        """The current conversation."""
        return self._conversation

    @property
    def answering(self) -> bool:
        """Return whether an answer is being generated."""
        return self._coming is not None

    def show_conversation(self, conversation: Conversation) -> None:
        """Show another conversation."""
        self._conversation = conversation
        self._marked = None
        self.clear()
        self._built = []
        self._unbuilt = conversation.path()
        self.to_end()
        self._build_some()

    def ask(self, text: str, pictures: tuple[str, ...] = ()) -> None:
        """Add a message of the user."""
        self._build_some(all_of_them=True)
        self._add_bubble(self._conversation.add("user", text, pictures))
        self.to_end()

    def ask_edited(self, question: Message, text: str, pictures: tuple[str, ...] = ()) -> None:
        """Add an edited version of a message as a new branch."""
        self._conversation.branch(question, text, pictures)
        self.mark(None)
        self._follow_conversation()
        self._build_some(all_of_them=True)
        self.to_end()

    def begin_answer(self, sampling: Sampling, model: str = "") -> None:
        """Add an empty answer, to be filled by `append_piece`."""
        self._build_some(all_of_them=True)
        message = self._conversation.add("assistant", "")
        message.sampling, message.model = encode(sampling), model
        self._coming = _PendingAnswer(message, self._add_bubble(message))

    def resume_answer(self) -> None:
        """Continue the last answer."""
        self._build_some(all_of_them=True)
        last = self._conversation.last
        if last is not None and last.role == "assistant" and self.messages:
            before, last.figures = last.figures, None
            self._coming = _PendingAnswer(last, self.messages[-1], before)
            self.to_end()

    def append_piece(self, piece: str) -> None:
        """Append text to the answer."""
        coming = self._coming
        if coming is None:
            return
        if coming.thought and not coming.message.text:
            piece = piece.lstrip("\n")
            coming.view.set_thinking(coming.message.thinking, coming.thought - coming.began, going=False)
        coming.message.text += piece
        if piece:
            coming.view.append(piece)

    def append_thought(self, piece: str) -> None:
        """Append text to the reasoning before the answer."""
        coming = self._coming
        if coming is not None:
            coming.thought = time.monotonic()
            coming.began = coming.began or coming.thought
            coming.message.thinking += piece
            coming.view.set_thinking(coming.message.thinking, coming.thought - coming.began, going=True)

    def end_answer(self, figures: Statistics) -> None:
        """Complete the answer. One that was ended before its first word is removed."""
        if self._coming is None:
            return
        coming, self._coming = self._coming, None
        message, view = coming.message, coming.view
        message.figures = figures if coming.before is None else coming.before.followed_by(figures)
        view.finish()
        view.set_thinking(message.thinking, _thought_for(message.figures, coming), going=False)
        said = message.text.strip() or message.thinking.strip()
        if not said and figures.ended_by != "end":
            self._conversation.drop_last()
            self._follow_conversation()
            self._build_some(all_of_them=True)

    def rewind(self) -> None:
        """Hide the last answer before another one is generated; it stays in the conversation."""
        self._build_some(all_of_them=True)
        self._conversation.rewind()
        self._follow_conversation()

    def unwind(self) -> None:
        """Show the newest answer to the last message again, if no other was generated."""
        last = self._conversation.last
        if last is not None and last.role == "user":
            self._conversation.unwind()
            self._follow_conversation()
            self._build_some(all_of_them=True)

    def mark(self, question: Message | None) -> None:
        """Mark the message that is being edited."""
        self._marked = question
        for identity, view in zip(self._built, self.messages, strict=False):
            view.set_marked(question is not None and identity == question.id)

    def update_footers(self, quiet: bool) -> None:
        """Show the statistics of the answers and the actions of each message; hide them unless `quiet`."""
        path = self._conversation.path()
        models = {message.model for message in path if message.model}
        for message, view in zip(path, self.messages, strict=False):
            mine = message.role == "user"
            last = message is path[-1] and not mine
            others = self._conversation.siblings(message)
            ended = message.figures.ended_by if message.figures is not None else "stopped"
            view.footer.set_caption(*caption_of(message.figures, message.model if len(models) > 1 else ""))
            view.footer.set_place(others.index(message), len(others) if quiet else 1)
            more = last and ended in _CAN_GO_ON and bool(message.text.strip())
            view.footer.offer(again=last and quiet, more=more and quiet, edit=mine and quiet)
            view.place_footer()

    def _follow_conversation(self) -> None:
        """Keep the widgets of messages that both branches share; build the others."""
        path = self._conversation.path()
        same = 0
        for identity, message in zip(self._built, path, strict=False):
            if identity != message.id:
                break
            same += 1
        for _ in range(len(self._built) - same):
            self._built.pop()
            self.remove_last()
        self._unbuilt = path[same:]

    def _build_some(self, all_of_them: bool = False) -> None:
        """Build widgets for a short time, and continue in the next iteration of the event loop."""
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
        self._built.append(message.id)
        if message.pictures:
            view.set_pictures(message.pictures, self._pictures)
        view.set_thinking(message.thinking, message.figures.thinking_seconds if message.figures else 0.0, going=False)
        view.footer.regenerate_asked.connect(self.regenerate_asked)
        view.footer.continue_asked.connect(self.continue_asked)
        view.footer.edit_asked.connect(lambda: self.edit_asked.emit(message))
        view.footer.other_asked.connect(lambda step: self._show_other(message, step))
        return view

    def _show_other(self, message: Message, step: int) -> None:
        if self._coming is not None:
            return
        others = self._conversation.siblings(message)
        place = others.index(message) + step
        if 0 <= place < len(others):
            bar = self.verticalScrollBar()
            at_end, value = self.following, bar.value()
            self._conversation.show(others[place])
            self._follow_conversation()
            if not at_end:
                self.stay_at(value)
            self._build_some()
            if not at_end:
                self.stay_at(value)
            self.branched.emit()


def _thought_for(figures: Statistics, coming: _PendingAnswer) -> float:
    """Return the duration of the reasoning as measured by the child, or else as seen here."""
    return figures.thinking_seconds or coming.thought - coming.began
