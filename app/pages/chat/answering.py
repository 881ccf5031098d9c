"""Questions and answers: loads the model on demand, sends the conversation and shows the answer.

Connects the model's session (`app.pages.chat.session`) and the messages (`ConversationView`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from PySide6.QtCore import QObject, QTimer, Signal

from app.pages.chat.conversation_view import ConversationView
from app.pages.chat.conversations.conversation import Conversation, Message
from app.pages.chat.session import ChatSession
from core.errors import BitwrightError, ChildDied
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
        self._waiting = self._more = False
        self.problem: BitwrightError | None = None
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

    def send(self, text: str) -> None:
        """Send a message and load the model if needed; messages sent meanwhile wait."""
        if self._settings().model and not self._view.answering:
            self._view.ask(text)
            self._answer()

    def send_edited(self, question: Message, text: str) -> None:
        """Send an edited version of an earlier message; the original keeps its branch."""
        if self._settings().model and self.quiet:
            self._view.ask_edited(question, text)
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
        self.problem = None
        if self._view.answering:
            self.session.stop()
            self._end(replace(self.session.figures, ended_by="stopped"))

    def drop_model(self) -> None:
        """Close the session; a current answer ends."""
        self._waiting = False
        self.session.close()
        self._end(None)

    def _answer(self, *, more: bool = False) -> None:
        """Answer the last message now, or as soon as the model is loaded."""
        self.problem, self._more = None, more
        if self.session.state == "measuring":
            self.session.stop()  # a message takes precedence over the measurement
        self._waiting = self.session.state != "ready"
        if self.session.state == "idle":
            self.load()
        elif self.session.state == "ready":
            settings = self._settings()
            self.conversation.model, self.conversation.system = settings.label, settings.system
            messages = self.conversation.prompt(settings.system)
            if more:
                self._view.resume_answer()
            else:
                self._view.begin_answer(settings.sampling, settings.label)
            self.session.generate(messages, settings.sampling, continue_last=more)
            self._tick.start()
        self.modified.emit()
        self.changed.emit()

    def _on_state(self) -> None:
        if self.session.state == "ready" and self._waiting:
            self._answer(more=self._more)
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
