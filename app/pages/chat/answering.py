"""Questions and answers: loads the model on demand, sends the conversation and shows the answer.

Connects the model's session (`app.pages.chat.session`) and the messages (`ConversationView`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from PySide6.QtCore import QObject, QTimer, Signal

from app.pages.chat.conversation_view import ConversationView
from app.pages.chat.conversations.conversation import LEFT_OUT, Conversation, Message
from app.pages.chat.conversations.picture_files import display_name
from app.pages.chat.session import ChatSession
from core.errors import BadInput, BitwrightError, ChildDied
from core.inference.generation.message import Message as ChatMessage
from core.inference.generation.reply import Statistics
from core.inference.generation.settings import Sampling


@dataclass(frozen=True)
class ChatSettings:
    """The user's settings: the model, its device and backend, system prompt and sampling."""

    model: str
    label: str
    device: str
    backend: str
    system: str
    sampling: Sampling


class AnswerControl(QObject):
    """The control of one conversation with one model.

    Signals:
        changed: the state or the messages changed.
        modified: the conversation must be saved.
        answered: an answer is complete.
        failed(object, bool): a `BitwrightError`, and whether the model is not loaded any more.
    """

    changed = Signal()
    modified = Signal()
    answered = Signal()
    failed = Signal(object, bool)

    def __init__(
        self,
        session: ChatSession,
        view: ConversationView,
        settings: Callable[[], ChatSettings],
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self.session, self._view, self._settings = session, view, settings
        self._waiting = self._more = self._without = False
        self.problem: BitwrightError | None = None
        self.unread: BitwrightError | None = None
        """The reason why the pictures of the last message cannot be read; `answer_without` leaves them out."""
        # Streamed text is saved twice a second, so that a crash loses at most a few words of the answer.
        self._tick = QTimer(self, interval=500)
        self._tick.timeout.connect(self.modified)
        session.changed.connect(self._on_state)
        session.piece.connect(view.append_piece)
        session.thought.connect(view.append_thought)
        session.answered.connect(self._on_answered)
        session.failed.connect(self._on_failed)
        view.continue_asked.connect(self.continue_answer)

    @property
    def conversation(self) -> Conversation:
        """The current conversation."""
        return self._view.conversation

    @property
    def quiet(self) -> bool:
        """Return whether no answer is pending, so that another request can be made."""
        return self.session.state in ("idle", "ready") and not self._view.answering

    @property
    def blind(self) -> str:
        """The reason why the loaded model does not read pictures, as a sentence; "" if it does, or none is loaded."""
        return self.session.blind(self._settings().label)

    @property
    def asks_in_words(self) -> bool:
        """Return whether the last question has text, so that it can be answered without its pictures."""
        questions = [message for message in self.conversation.path() if message.role == "user"]
        return bool(questions) and bool(questions[-1].text.strip())

    def send(self, text: str, pictures: tuple[str, ...] = ()) -> None:
        """Send a message and load the model if needed; messages sent meanwhile wait."""
        if self._settings().model and not self._view.answering:
            self._view.ask(text, pictures)
            self._answer()

    def send_edited(self, question: Message, text: str, pictures: tuple[str, ...] = ()) -> None:
        """Send an edited version of an earlier message; the original keeps its branch."""
        if self._settings().model and self.quiet:
            self._view.ask_edited(question, text, pictures)
            self._answer()

    def regenerate(self) -> None:
        """Generate another answer to the last message; the earlier one can still be shown."""
        last = self.conversation.last
        if last is not None and last.role == "assistant" and self.quiet:
            self._view.rewind()
            self._answer()

    def continue_answer(self) -> None:
        """Continue the last answer."""
        last = self.conversation.last
        if last is not None and last.role == "assistant" and last.text.strip() and self.quiet:
            self._answer(more=True)

    def answer(self) -> None:
        """Generate the answer to the last message, if it has none yet."""
        self._answer()

    def answer_without(self) -> None:
        """Generate the answer that was asked for, without pictures that cannot be read."""
        last = self.conversation.last
        if self.unread is not None and self.quiet:
            if last is not None and last.role == "assistant" and not self._more:
                self._view.rewind()
            self._answer(more=self._more, without=True)

    def stop(self) -> None:
        """Stop the answer or the loading."""
        self._waiting = False
        if self.session.state == "loading":
            self.session.close()
            self._view.unwind()
        else:
            self.session.stop()
            if self.session.state == "idle":  # stopped twice: the child was killed and sends no final event
                self._end(None)
        self.changed.emit()

    def load(self) -> None:
        """Load the selected model."""
        settings = self._settings()
        if settings.model:
            self.problem = None
            self.session.load(settings.model, settings.device, settings.backend)
            self.changed.emit()

    def load_again(self) -> None:
        """Load the model after an error, and answer the message that has no answer."""
        if self.session.state == "idle":
            last = self.conversation.last
            self._waiting = last is not None and last.role == "user"
            self.load()

    def end_conversation(self) -> None:
        """End the current answer and discard waiting messages, before another conversation is shown."""
        self._waiting = False
        self.problem = self.unread = None
        if self._view.answering:
            self.session.stop()
            self._end(replace(self.session.figures, ended_by="stopped"))

    def drop_model(self) -> None:
        """Close the session; a current answer ends."""
        self._waiting = False
        self.unread = None
        self.session.close()
        self._end(None)

    def messages(self) -> list[ChatMessage]:
        """Return the conversation as it is sent to the model: without pictures that it does not read."""
        return self.conversation.prompt(self._settings().system, pictures=not self.blind)

    def _answer(self, *, more: bool = False, without: bool = False) -> None:
        """Answer the last message now, or as soon as the model is loaded.

        Args:
            more: continue the last answer.
            without: leave out pictures of the last question that cannot be read.
        """
        self.problem, self.unread, self._more, self._without = None, None, more, without
        if self.session.state == "measuring":
            self.session.stop()  # a message takes precedence over the measurement
        self._waiting = self.session.state != "ready"
        if self.session.state == "idle":
            self.load()
        elif self.session.state == "ready":
            self.unread = None if without else self._unreadable()
            if self.unread is None:
                self._generate(more)
            else:
                self._view.unwind()
        self.modified.emit()
        self.changed.emit()

    def _generate(self, more: bool) -> None:
        settings = self._settings()
        self.conversation.model, self.conversation.system = settings.label, settings.system
        messages = self.messages()
        if self._without:
            messages = [_readable(message) for message in messages]
        if more:
            self._view.resume_answer()
        else:
            self._view.begin_answer(settings.sampling, settings.label)
        self.session.generate(messages, settings.sampling, continue_last=more)
        self._tick.start()

    def _unreadable(self) -> BitwrightError | None:
        """Return the reason why a picture cannot be read: by this model in the last question, or its file anywhere."""
        questions = [message for message in self.conversation.path() if message.role == "user"]
        if self.blind:
            if questions and questions[-1].pictures:
                return BadInput(self.blind, self.tr("Select a model that reads pictures."))
            return None
        for message in questions:
            for path in message.pictures:
                if not Path(path).is_file():
                    words = self.tr("The file of the picture {name} is missing.").format(name=display_name(path))
                    return BadInput(words, self.tr("Attach it again, or answer without it."))
        return None

    def _on_state(self) -> None:
        if self.session.state == "ready" and self._waiting:
            self._answer(more=self._more, without=self._without)
        else:
            self.changed.emit()

    def _on_answered(self, figures: Statistics) -> None:
        self._end(figures)
        self.answered.emit()

    def _end(self, figures: Statistics | None) -> None:
        """Store the answer so far; `figures` is None if its final event was not received."""
        self._tick.stop()
        if self._view.answering:
            self._view.end_answer(figures or replace(self.session.figures, ended_by="failed"))
            self.modified.emit()
        self.changed.emit()

    def _on_failed(self, error: BitwrightError, loading: bool) -> None:
        self._waiting = False
        self._end(None)
        self._view.unwind()
        lost = loading or isinstance(error, ChildDied)
        if not lost:
            self.problem = error
        self.failed.emit(error, lost)
        self.changed.emit()


def _readable(message: ChatMessage) -> ChatMessage:
    """Return a message without pictures whose files are missing."""
    found: ChatMessage = {**message}
    found["pictures"] = tuple(path for path in message.get("pictures", ()) if Path(path).is_file())
    if not found["pictures"]:
        del found["pictures"]
        found["content"] = found["content"] or LEFT_OUT
    return found
