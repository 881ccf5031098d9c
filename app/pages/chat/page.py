"""The chat page: a conversation with a finished model, or with its original, and what the answers cost.

Brings together the conversations (`app.models.conversation`), the child that answers (`app.chat_session`) and the
widgets that show both. What is offered in which state is decided in `_update` alone.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtGui import QKeyEvent, QShowEvent
from PySide6.QtWidgets import QFileDialog, QHBoxLayout, QWidget

from app.chat_session import ChatSession
from app.context import Context, Remedy
from app.models import chat_choices
from app.models.chat_choices import ChatChoice
from app.models.conversation import Conversation, Figures
from app.models.finished_models import FinishedModels
from app.pages.chat.middle import ChatMiddle
from app.pages.chat.panel import ChatPanel, describe
from core.errors import BitwrightError, ChildDied, ModelNotFound
from core.files import write_atomic

REQUEST = "chat/model"
"""Key in the state under which other pages leave the model to talk to, before they go to this page."""
_PICKED = "chat/picked"


class ChatPage(QWidget):
    """Conversation in the middle, model and settings on the right.

    Signals:
        dot_changed: an answer came while another page was shown, or was seen.
    """

    page_id = "chat"
    dot_changed = Signal()

    def __init__(self, context: Context, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.title = self.tr("Chat")
        self._context = context
        self._session = ChatSession(context.calls, self)
        self._talks: dict[str, Conversation] = {}
        self._made = FinishedModels(context.calls, self)
        self._folders: list[ChatChoice] = []
        self._model = context.state.value(_PICKED, "")
        self._waiting = self._dot = False
        self._problem: BitwrightError | None = None
        self._cleared: Conversation | None = None
        self._middle = ChatMiddle(context, self)
        self._view = self._middle.conversation
        self._panel = ChatPanel(context, self)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(0)
        row.addWidget(self._middle, 1)
        row.addWidget(self._panel)
        # Four times a second: figures that change with every token cannot be read.
        self._tick = QTimer(self, interval=250)
        self._tick.timeout.connect(self._update_figures)
        self._connect()
        self._panel.device.set_machine(context.draft.machine)
        self._refresh()
        self._show_talk()

    def _connect(self) -> None:
        session, middle, panel, runs = self._session, self._middle, self._panel, self._context.runs
        session.changed.connect(self._on_state)
        session.progressed.connect(self._update_notice)
        session.piece.connect(self._view.append_piece)
        session.answered.connect(self._on_answered)
        session.failed.connect(self._on_failed)
        self._view.regenerate_asked.connect(self.regenerate)
        self._view.switched.connect(self._update)
        middle.composer.sent.connect(self.send)
        middle.composer.stop_asked.connect(self.stop)
        middle.welcome.chosen.connect(self.send)
        middle.welcome.model_asked.connect(lambda: self._context.go("model"))
        middle.save_asked.connect(self._save)
        middle.clear_asked.connect(self.clear)
        panel.models.picked.connect(self._pick)
        panel.models.opened.connect(self._open_folder)
        panel.models.load_asked.connect(self._press_load)
        panel.device.picked.connect(self._pick_device)
        self._context.draft.changed.connect(self._on_draft)
        runs.changed.connect(lambda: middle.show_slow(runs.active))
        runs.started.connect(self._update)
        runs.ended.connect(lambda _job: self._made.look())
        self._made.changed.connect(self._refresh)

    # --- what the window asks ---

    def dot(self) -> bool:
        """Whether an answer came that was not looked at."""
        return self._dot

    def open_model(self, name: str) -> None:
        """Show the model `name`; load it at once where the run of this window has just made it."""
        record = self._context.runs.record
        if record is not None and record.spec is not None and record.spec.output == name:
            # a run that wrote several formats has a folder for each in its output
            name = str(record.spec.output_of(record.spec.formats[0]))
        self._open_folder(name)
        if record is not None and record.state == "done" and self._session.state == "idle":
            self._load()
        self._middle.composer.setFocus()

    def showEvent(self, event: QShowEvent) -> None:
        """Look for models again, and take what another page asked for."""
        super().showEvent(event)
        self._set_dot(False)
        self._refresh()
        self._made.look()
        wanted = self._context.state.value(REQUEST, "")
        if wanted:
            self._context.state.set_value(REQUEST, "")
            self.open_model(wanted)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Esc ends what goes on; where nothing does, it is the window's."""
        if event.key() == Qt.Key.Key_Escape and self._session.state in ("answering", "loading"):
            self.stop()
            event.accept()
        else:
            super().keyPressEvent(event)

    # --- what the user does ---

    def send(self, text: str) -> None:
        """Say `text` to the picked model, loading it first where need be; what is said meanwhile waits."""
        if self._model and not self._view.answering:
            self._problem = self._cleared = None
            self._view.ask(text)
            self._answer()

    def stop(self) -> None:
        """End what goes on: the answer, or loading."""
        self._waiting = False
        if self._session.state == "loading":
            self._session.close()
            self._view.unwind()
        else:
            self._session.stop()
            if self._session.state == "idle":  # asked for the second time: the child is gone, and says no more
                self._end_answer(None)
        self._update()

    def regenerate(self) -> None:
        """Have the last question answered again; the earlier answer can still be shown."""
        last = self._view.talk.last
        if last is None or last.role != "assistant" or self._session.state not in ("idle", "ready"):
            return
        if self._panel.sampling.fixed:
            self._context.say(self.tr("At temperature 0 the answer is the same each time; raise it for another one."))
        self._problem = None
        self._view.rewind()
        self._answer()

    def clear(self) -> None:
        """Begin a new conversation with this model; the old one can be brought back until something is said."""
        if len(self._view.talk) and not self._view.answering:
            self._waiting = False
            self._problem = None
            self._cleared = self._view.talk
            self._talks[self._model] = Conversation()
            self._show_talk()
            self._middle.composer.setFocus()

    def save_to(self, path: str) -> None:
        """Write the conversation as it is shown to a Markdown file."""
        text = self._view.talk.to_markdown(self._label(), self._panel.system)
        try:
            write_atomic(Path(path), text.encode("utf-8", errors="replace"))
        except OSError as error:
            reason = BitwrightError(f"{path} cannot be written: {error.strerror}.", self.tr("Choose another place."))
            self._context.report(reason, Remedy(self.tr("Save again"), self._save))
        else:
            self._context.say(self.tr("Saved as {path}").format(path=path))

    def _save(self) -> None:
        dialog = QFileDialog(self, self.tr("Save the conversation"))
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setNameFilter(self.tr("Markdown (*.md)"))
        dialog.setDefaultSuffix("md")
        dialog.selectFile(f"{self._label()}.md")
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.fileSelected.connect(self.save_to)
        dialog.open()

    def _bring_back(self) -> None:
        if self._cleared is not None:
            self._talks[self._model], self._cleared = self._cleared, None
            self._show_talk()

    def _pick(self, name: str) -> None:
        if name == self._model:
            return
        self._drop_model()
        self._model = name
        self._context.state.set_value(_PICKED, name)
        self._problem = self._cleared = None
        self._refresh()
        self._show_talk()

    def _open_folder(self, path: str) -> None:
        if all(choice.name != path for choice in self._choices()):
            self._folders.append(chat_choices.folder(path))
            self._refresh()
        self._pick(path)

    def _pick_device(self, _device: str) -> None:
        if self._session.state != "idle":
            self._drop_model()
            self._context.say(self.tr("The model will be loaded again on the device that you picked."))
        self._update()

    def _press_load(self) -> None:
        if self._session.state == "idle":
            self._load()
        elif self._session.state == "loading":
            self.stop()
        else:
            self._drop_model()
            self._update()

    # --- loading and answering ---

    def _load(self) -> None:
        if self._model:
            self._problem = None
            self._session.load(self._model, self._panel.device.current)
            self._update()

    def _load_again(self) -> None:
        self._context.go(self.page_id)
        if self._session.state == "idle":
            last = self._view.talk.last
            self._waiting = last is not None and last.role == "user"
            self._load()

    def _drop_model(self) -> None:
        """Close the child; an answer that was coming ends where it is."""
        self._waiting = False
        self._session.close()
        self._end_answer(None)

    def _answer(self) -> None:
        """Have the last message answered: now, or as soon as the model is loaded."""
        self._waiting = self._session.state in ("idle", "loading")
        if self._session.state == "idle":
            self._load()
        elif self._session.state == "ready":
            messages, sampling = self._view.talk.prompt(self._panel.system), self._panel.sampling.values()
            self._view.begin_answer(sampling)
            self._session.say(messages, sampling)
            self._tick.start()
        self._update()

    def _on_state(self) -> None:
        if self._session.state == "ready" and self._waiting:
            self._answer()
        else:
            self._update()

    def _on_answered(self, figures: Figures) -> None:
        self._end_answer(figures)
        if not self.isVisible():
            self._set_dot(True)

    def _end_answer(self, figures: Figures | None) -> None:
        """Keep what has come of the answer; None where its end was not heard of."""
        self._tick.stop()
        self._view.end_answer(figures or replace(self._session.figures, ended_by="failed"))
        self._update()

    def _on_failed(self, error: BitwrightError, loading: bool) -> None:
        self._waiting = False
        self._end_answer(None)
        self._view.unwind()
        if loading or isinstance(error, ChildDied):
            again = Remedy(self.tr("Load again"), self._load_again)
            other = Remedy(self.tr("Open folder\N{HORIZONTAL ELLIPSIS}"), self._panel.models.ask_folder)
            self._context.report(error, other if isinstance(error, ModelNotFound) else again)
        else:
            self._problem = error
        self._update()

    # --- showing ---

    def _on_draft(self) -> None:
        self._panel.device.set_machine(self._context.draft.machine)
        self._refresh()

    def _choices(self) -> list[ChatChoice]:
        model, record = self._context.draft.model, self._context.runs.record
        originals = []
        if model is not None:
            originals.append(chat_choices.original(model.name, model.label, model.download_bytes))
        if record is not None and record.spec is not None:
            originals.append(chat_choices.original(record.spec.model, ""))
        return chat_choices.merged(self._made.choices, originals, self._folders)

    def _refresh(self) -> None:
        """Offer the models that there are; the picked one stays where anything was begun with it."""
        choices = self._choices() if self._made.looked or self._model else []
        known = any(choice.name == self._model for choice in choices)
        if not known and self._made.looked and self._session.state == "idle" and not len(self._view.talk):
            self._model = choices[0].name if choices else ""
            self._show_talk()
        elif not known and self._model:
            choices.append(chat_choices.folder(self._model))
        self._panel.models.set_choices(choices, self._model)
        self._update()

    def _label(self) -> str:
        choice = self._panel.models.current
        return choice.label if choice is not None else chat_choices.short_name(self._model)

    def _show_talk(self) -> None:
        self._view.show_talk(self._talks.setdefault(self._model, Conversation()))
        self._update()

    def _update(self) -> None:
        """Bring everything that is offered in line with the state."""
        state, empty = self._session.state, not len(self._view.talk)
        busy = state == "answering"
        self._middle.show_empty(empty, busy)
        self._middle.welcome.set_model(self._label() if self._model else "", state != "idle")
        self._middle.set_title("" if empty else self._label(), self._model)
        self._middle.composer.set_state(busy, self._session.stopping, bool(self._model))
        self._middle.show_slow(self._context.runs.active)
        self._view.update_footers(state in ("idle", "ready"))
        self._update_panel()
        self._update_notice()
        self._update_figures()

    def _update_panel(self) -> None:
        state, models, choice = self._session.state, self._panel.models, self._panel.models.current
        words = {
            "idle": (self.tr("Load"), self.tr("Read the model into memory now")),
            "loading": (self.tr("Cancel"), self.tr("Stop loading (Esc)")),
            "ready": (self.tr("Unload"), self.tr("Give its memory back; the conversation stays")),
            "answering": (self.tr("Unload"), self.tr("Stop the answer first")),
        }
        models.set_load(*words[state], enabled=bool(self._model) and state != "answering")
        loaded = state in ("ready", "answering")
        opened = self._session.opened
        detail = describe(opened) if loaded else choice.detail if choice is not None else ""
        if loaded and not opened.template:
            detail += "\n" + self.tr("It has no chat format: it continues your text instead of answering.")
        models.set_detail(detail)
        self._panel.show_opened(opened if loaded else None)

    def _update_notice(self) -> None:
        notice, last, state = self._middle.notice, self._view.talk.last, self._session.state
        if state == "loading":
            text, fraction = self._session.progress
            notice.say(text, self.tr("Cancel"), self.stop, fraction=fraction)
        elif self._problem is not None:
            notice.say(str(self._problem), self.tr("Start a new conversation"), self.clear, role="warning")
        elif self._cleared is not None and last is None:
            notice.say(self.tr("The conversation was cleared."), self.tr("Undo"), self._bring_back)
        elif state != "answering" and last is not None and last.role == "user":
            notice.say(self.tr("Your last message has no answer yet."), self.tr("Answer it"), self._answer)
        elif last is not None and last.figures is not None and last.figures.ended_by == "context":
            text = self.tr("The conversation fills all that the model can read at once.")
            notice.say(text, self.tr("Start a new conversation"), self.clear, role="warning")
        else:
            notice.hide()

    def _update_figures(self) -> None:
        coming = self._session.state == "answering"
        if coming:
            figures: Figures | None = self._session.figures
        else:
            told = [message.figures for message in self._view.talk.path() if message.figures is not None]
            figures = told[-1] if told else None
        self._panel.figures.show_figures(figures, self._session.opened.context, about=coming)

    def _set_dot(self, dot: bool) -> None:
        if dot != self._dot:
            self._dot = dot
            self.dot_changed.emit()
