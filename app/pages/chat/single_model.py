"""The chat with one model: the conversation in the middle, the model and its settings on the right.

Only `_update` decides which widgets are enabled. `app.pages.chat.answering` generates the answers,
`app.pages.chat.model_picker` selects the model; the page keeps the saved conversations.
"""

from __future__ import annotations

from PySide6.QtCore import QTimer, Signal
from PySide6.QtWidgets import QHBoxLayout, QWidget

from app.pages.chat.answering import AnswerControl, ChatSettings
from app.pages.chat.bench_panel import BenchPanel
from app.pages.chat.chat_view import ChatView
from app.pages.chat.conversations.conversation import Conversation, Message
from app.pages.chat.model_picker import ModelSelection
from app.pages.chat.notice import show_notice
from app.pages.chat.panel import ChatPanel, describe
from app.pages.chat.pictures.drop import PictureDrop
from app.pages.chat.remedies import RecoveryActions, remedy_for
from app.pages.chat.serve_panel import ServePanel
from app.pages.chat.session import ChatSession
from app.shared.context import Context
from core.errors import BitwrightError
from core.inference.generation.reply import Statistics


class SingleModelChat(QWidget):
    """A conversation with one model at a time; the model can be changed during a conversation.

    Signals:
        changed: the conversation or the model changed.
        modified: the conversation must be saved.
        answered: an answer is complete.
        new_asked: the user wants to start a new conversation.
    """

    changed = Signal()
    modified = Signal()
    answered = Signal()
    new_asked = Signal()

    def __init__(self, context: Context, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._context = context
        self.session = ChatSession(context.calls, self)
        self.selection = ModelSelection(context, self)
        self.chat_view = ChatView(context, self)
        self.panel = ChatPanel(context, self)
        self.view = self.chat_view.conversation
        self.panel.add_section(BenchPanel(context, self.session))
        self.panel.add_section(ServePanel(context, self.session))
        self.answering = AnswerControl(self.session, self.view, self._settings, self)
        self._edited: Message | None = None
        self._refused: BitwrightError | None = None
        PictureDrop(self.chat_view, self.chat_view.composer)
        self._counted = 0
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(0)
        row.addWidget(self.chat_view, 1)
        row.addWidget(self.panel)
        # Four times a second: figures that change with every token are not readable.
        self._tick = QTimer(self, interval=250)
        self._tick.timeout.connect(self._update_figures)
        self._connect()
        self.panel.device.set_machine(context.draft.machine)
        self.selection.refresh()
        self.show_conversation(Conversation())

    def _connect(self) -> None:
        answering, chat_view, panel, runs = self.answering, self.chat_view, self.panel, self._context.runs
        answering.changed.connect(self._update)
        answering.modified.connect(self.modified)
        answering.answered.connect(self.answered)
        answering.failed.connect(self._on_failed)
        self.session.progressed.connect(self._update_notice)
        self.session.counted.connect(self._on_counted)
        self.view.switched.connect(self._update)
        self.view.branched.connect(self._on_branched)
        self.view.regenerate_asked.connect(self.regenerate)
        self.view.edit_asked.connect(self.edit)
        chat_view.composer.sent.connect(self.send)
        chat_view.composer.stop_asked.connect(self.stop)
        chat_view.composer.recall_asked.connect(self.edit_last)
        chat_view.composer.edit_ended.connect(self._end_edit)
        chat_view.composer.pictures_edited.connect(self._on_pictures_edited)
        chat_view.composer.refused.connect(self._on_refused)
        chat_view.pictures.failed.connect(lambda error: self._context.report(error, None))
        chat_view.pictures.told.connect(self._context.show_message)
        chat_view.welcome.chosen.connect(self.send)
        chat_view.welcome.model_asked.connect(lambda: self._context.go("model"))
        panel.models.picked.connect(self.pick)
        panel.models.opened.connect(self.open_folder)
        panel.models.load_asked.connect(self._press_load)
        panel.device.picked.connect(lambda _device: self._load_elsewhere())
        panel.backend.picked.connect(lambda _name: self._load_elsewhere())
        panel.system_changed.connect(self._note_system)
        self.selection.changed.connect(self._show_choices)
        self._context.draft.machine_changed.connect(self._machine_changed)
        runs.changed.connect(lambda: chat_view.show_slow(runs.active))
        runs.started.connect(self._update)

    # --- user actions ---

    @property
    def conversation(self) -> Conversation:
        """The current conversation."""
        return self.view.conversation

    def send(self, text: str, pictures: tuple[str, ...] = ()) -> None:
        """Send a message, or the edited version of an earlier one."""
        self._refused = None
        if self._edited is not None:
            self.answering.send_edited(self._edited, text, pictures)
        else:
            self.answering.send(text, pictures)

    def stop(self) -> None:
        """Stop the answer or the loading."""
        self.answering.stop()

    def regenerate(self) -> None:
        """Generate another answer to the last message; the earlier one can still be shown."""
        if self.panel.sampling.fixed:
            self._context.show_message(
                self.tr("At temperature 0 the answer is always the same. Increase the temperature for a different one.")
            )
        self.answering.regenerate()

    def edit(self, question: Message) -> None:
        """Edit an earlier message."""
        if self.answering.quiet:
            self.chat_view.composer.begin_edit(question.text, question.pictures)
            self._edited = question
            self.view.mark(question)

    def edit_last(self) -> None:
        """Edit the last message."""
        questions = [message for message in self.conversation.path() if message.role == "user"]
        if questions:
            self.edit(questions[-1])

    def show_conversation(self, conversation: Conversation) -> None:
        """Show another conversation; an answer in the previous one ends."""
        self.answering.end_conversation()
        self._refused = None
        self.chat_view.composer.end_edit()
        self._counted = 0
        self.view.show_conversation(conversation)
        if len(conversation):
            self.panel.set_system(conversation.system)
        self._update()

    def pick(self, name: str) -> None:
        """Select another model in the same conversation; load it at once if one is loaded."""
        if name == self.selection.model:
            return
        loaded = self.session.state != "idle"
        self.answering.drop_model()
        self._counted = 0
        self.selection.pick(name)
        if loaded:
            self.answering.load()
        self._update()

    def open_folder(self, path: str) -> None:
        """Add a folder and select it."""
        self.selection.add_folder(path)
        self.pick(path)

    def unload(self) -> None:
        """Unload the model; the conversation stays, and the next message loads the model again."""
        self.answering.drop_model()
        self._counted = 0  # a requested count will not arrive
        self._update()

    def unload_if_idle(self) -> None:
        """Unload an idle model, to free memory for a comparison."""
        if self.session.state == "ready":
            self.unload()
            words = self.tr("{model} was unloaded. Your next message loads it again.")
            self._context.show_message(words.format(model=self.selection.label))

    def handle_escape(self, quick: bool = False) -> bool:
        """Stop an answer, loading or editing; return whether there was something to stop."""
        if self.session.state in ("answering", "loading", "measuring"):
            self.stop()
        elif self.chat_view.composer.editing and not quick:
            self.chat_view.composer.end_edit()
        else:
            return False
        return True

    def _settings(self) -> ChatSettings:
        panel = self.panel
        return ChatSettings(
            self.selection.model, self.selection.label, panel.device.current, panel.backend.current, panel.system,
            panel.sampling.values(),
        )  # fmt: skip

    def _end_edit(self) -> None:
        self._edited = None
        self.view.mark(None)

    def _press_load(self) -> None:
        if self.session.state == "idle":
            self.answering.load()
        elif self.session.state == "loading":
            self.stop()
        else:
            self.unload()

    def _load_elsewhere(self) -> None:
        """Load the model again after another device or backend was selected."""
        if self.session.state != "idle":
            self.answering.drop_model()
            self.answering.load()
        self._update()

    def _note_system(self) -> None:
        if len(self.conversation) and self.conversation.system != self.panel.system:
            self.conversation.system = self.panel.system
            self.modified.emit()

    # --- reactions ---

    def _on_failed(self, error: BitwrightError, lost: bool) -> None:
        if lost:
            actions = RecoveryActions(
                self._load_again, self._load_on_cpu, self._load_automatic, self.panel.models.choose_folder
            )
            settings = self._settings()
            meant = self.panel.device.meant
            self._context.report(error, remedy_for(error, meant, settings.backend, actions))

    def _load_again(self) -> None:
        self._context.go("chat")
        self.answering.load_again()

    def _load_on_cpu(self) -> None:
        self.panel.device.use_cpu()
        self._load_again()

    def _load_automatic(self) -> None:
        self.panel.backend.use_automatic()
        self._load_again()

    def _on_refused(self, error: BitwrightError) -> None:
        self._refused = error
        self._update_notice()

    def _on_pictures_edited(self) -> None:
        self._refused = None
        self._update()

    def _dismiss_refusal(self) -> None:
        self._refused = None
        self._update_notice()

    def _on_counted(self, tokens: int) -> None:
        self._counted = tokens
        self._update_figures()

    def _on_branched(self) -> None:
        self._counted = 0
        self.modified.emit()
        self._update()

    def _machine_changed(self) -> None:
        self.panel.device.set_machine(self._context.draft.machine)
        self._update()

    # --- display ---

    def _show_choices(self) -> None:
        self.panel.models.set_choices(self.selection.choices, self.selection.model)
        self._update()

    def _update(self) -> None:
        """Update all widgets for the current state."""
        state, empty = self.session.state, not len(self.conversation)
        self.selection.settled = state != "idle" or not empty
        self.chat_view.show_empty(empty)
        label = self.selection.label if self.selection.model else ""
        self.chat_view.welcome.set_model(label, state != "idle")
        self.chat_view.composer.set_blind(self.answering.blind)
        self.chat_view.show_left_out(self._left_out())
        self.chat_view.composer.set_state(state == "answering", self.session.stopping, bool(self.selection.model))
        self.chat_view.show_slow(self._context.runs.active)
        self.view.update_footers(self.answering.quiet)
        self._update_panel()
        self._update_notice()
        self._update_figures()
        if state == "answering":
            self._tick.start()
        else:
            self._tick.stop()
        self.changed.emit()

    def _update_panel(self) -> None:
        state, models, choice = self.session.state, self.panel.models, self.selection.current
        words = {
            "idle": (self.tr("Load"), self.tr("Load the model into memory now")),
            "loading": (self.tr("Cancel"), self.tr("Stop loading (Esc)")),
            "ready": (self.tr("Unload"), self.tr("Free the memory of the model; the conversation stays")),
            "answering": (self.tr("Unload"), self.tr("Stop the answer first")),
            "measuring": (self.tr("Unload"), self.tr("Stop the measurement first")),
        }
        busy = state in ("answering", "measuring")
        models.set_load(*words[state], enabled=bool(self.selection.model) and not busy)
        loaded, opened = state not in ("idle", "loading"), self.session.opened
        detail = describe(opened) if loaded else choice.detail if choice is not None else ""
        if loaded and not opened.template:
            detail += "\n" + self.tr(
                "This model has no chat template, so it continues text instead of answering. It receives the messages "
                "without roles, one per line, after the system prompt."
            )
        models.set_detail(detail)
        rows = self._context.draft.machine.backends.get(self.panel.device.meant, ())
        self.panel.show_opened(opened if loaded else None, rows)

    def _update_notice(self) -> None:
        show_notice(self.chat_view.notice, self.answering, self.new_asked.emit, self._refused, self._dismiss_refusal)

    def _left_out(self) -> str:
        """Return a sentence if earlier pictures are not sent to the loaded model, otherwise ""."""
        blind = self.answering.blind
        told = self.answering.unread is not None or self.chat_view.composer.has_pictures
        if not blind or told or not any(message.pictures for message in self.conversation.path()):
            return ""
        return self.tr("{reason} The pictures of this conversation are left out.").format(reason=blind)

    def _update_figures(self) -> None:
        coming = self.session.state == "answering"
        told = [message for message in self.conversation.path() if message.figures is not None]
        figures: Statistics | None = told[-1].figures if told else None
        opened = self.session.opened
        self.panel.figures.show_figures(self.session.figures if coming else figures, opened.memory_bytes, about=coming)
        # statistics of another model's answer do not apply
        mine = figures if told and told[-1].model == self.selection.label else None
        if mine is None and len(self.conversation) and opened.context and self.answering.quiet and not self._counted:
            self._counted = -1  # requested
            self.session.count(self.answering.messages())
        used = mine.used if mine is not None else max(0, self._counted)
        self.chat_view.meter.show_use(used, opened.context, mine.dropped_messages if mine is not None else 0)
