"""Questions and their answers: who is asked, when the model is loaded for it, and what becomes of what comes back.

Brings the child that answers (`app.pages.chat.session`) and the bubbles (`ConversationView`) together. Knows nothing of
pickers, notices and files.
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
    """What the user has set: the model, where and how it computes, and how it is to answer."""

    model: str
    label: str
    device: str
    backend: str
    system: str
    sampling: Sampling


class AnswerControl(QObject):
    """One conversation with one model at a time.

    Signals:
        changed: something is another way: the state, the messages.
        modified: the conversation has more to save.
        answered: an answer is complete.
        failed(object, bool): a `BitwrightError` to tell, and whether it came while loading or the child is gone.
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
        # Twice a second: text that streams is saved as it comes, so that a crash takes a word and not the answer.
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
        """What is talked about."""
        return self._view.conversation

    @property
    def quiet(self) -> bool:
        """Whether nothing is coming: another thing can be asked for."""
        return self.session.state in ("idle", "ready") and not self._view.answering

    def send(self, text: str) -> None:
        """Say `text`, loading the model first where need be; what is said meanwhile waits."""
        if self._settings().model and not self._view.answering:
            self._view.ask(text)
            self._answer()

    def send_edited(self, question: Message, text: str) -> None:
        """Say an earlier question in other words; the branch below the first stays."""
        if self._settings().model and self.quiet:
            self._view.ask_edited(question, text)
            self._answer()

    def regenerate(self) -> None:
        """Have the last question answered again; the earlier answer can still be shown."""
        last = self.conversation.last
        if last is not None and last.role == "assistant" and self.quiet:
            self._view.rewind()
            self._answer()

    def continue_answer(self) -> None:
        """Let the model say more of the last answer."""
        last = self.conversation.last
        if last is not None and last.role == "assistant" and last.text.strip() and self.quiet:
            self._answer(more=True)

    def answer(self) -> None:
        """Have the last question answered that has no answer yet."""
        self._answer()

    def stop(self) -> None:
        """End what goes on: the answer, or loading."""
        self._waiting = False
        if self.session.state == "loading":
            self.session.close()
            self._view.unwind()
        else:
            self.session.stop()
            if self.session.state == "idle":  # asked for the second time: the child is gone, and says no more
                self._end(None)
        self.changed.emit()

    def load(self) -> None:
        """Load the picked model."""
        settings = self._settings()
        if settings.model:
            self.problem = None
            self.session.load(settings.model, settings.device, settings.backend)
            self.changed.emit()

    def load_again(self) -> None:
        """Load it after trouble, and go on with the question that has no answer."""
        if self.session.state == "idle":
            last = self.conversation.last
            self._waiting = last is not None and last.role == "user"
            self.load()

    def end_conversation(self) -> None:
        """Another conversation will be shown: an answer that is coming ends where it is, and nothing waits."""
        self._waiting = False
        self.problem = None
        if self._view.answering:
            self.session.stop()
            self._end(replace(self.session.figures, ended_by="stopped"))

    def drop_model(self) -> None:
        """Close the child; an answer that was coming ends where it is."""
        self._waiting = False
        self.session.close()
        self._end(None)

    def _answer(self, *, more: bool = False) -> None:
        """Have the last message answered: now, or as soon as the model is loaded."""
        self.problem, self._more = None, more
        if self.session.state == "measuring":
            self.session.stop()  # whoever asks something does not want to wait for it
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
        """Keep what has come of the answer; None where its end was not heard of."""
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
