"""The Convert page: pick a model, see what it can become and why not, and have it written in another format.

Brings together what is asked of the service (`app.pages.convert.conversion`) and the widgets that show it. What is
shown in which state is decided in `_update` alone.
"""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import Qt, QUrl, Signal
from PySide6.QtGui import (
    QAction,
    QDesktopServices,
    QDragEnterEvent,
    QDropEvent,
    QGuiApplication,
    QKeyEvent,
    QKeySequence,
    QShowEvent,
)
from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from app.pages.convert import conversion_words
from app.pages.convert.choice_panel import ChoicePanel
from app.pages.convert.conversion import Conversion
from app.pages.convert.conversion_table import ConversionTable
from app.pages.convert.outcome_panel import OutcomePanel
from app.pages.convert.possible_view import PossibleView
from app.pages.convert.source_bar import SourceBar
from app.pages.convert.welcome import ConvertWelcome
from app.shared.context import Context, Remedy
from app.shared.drop_target import target_of, words_of
from app.shared.models import choices as model_choices
from app.shared.models.choices import ModelChoice
from app.shared.models.finished import FinishedModels
from app.shared.run import notification
from app.shared.run.words import for_the_window
from app.widgets.announcement import announce
from app.widgets.transfer_bar import TransferBar
from app.widgets.view_stack import ViewStack
from core.conversion.survey import ConversionOption
from core.errors import BitwrightError, OutputProblem
from core.events import Event, Stage
from core.files import free_name
from core.formats.names import folder_name
from core.home import home
from core.model_id import DEMO
from core.service.messages import ConvertedModel

REQUEST = "convert/source"
"""Key in the state under which other pages leave the model to convert, before they go to this page."""
_WIDEST = 1320


class ConvertPage(QWidget):
    """The sixth page of the window.

    Signals:
        dot_changed: ask `dot` again.
    """

    page_id = "convert"
    dot_changed = Signal()

    def __init__(self, context: Context, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.title = self.tr("Convert")
        self._context = context
        self.conversion = Conversion(context.calls, self)
        self._made = FinishedModels(context.calls, self)
        self._opened: list[ModelChoice] = []
        self._output = ""
        self._dot = False
        theme = context.theme
        self.source = SourceBar(theme, self)
        self.welcome = ConvertWelcome(theme)
        self.looking = TransferBar(theme)
        self.table = ConversionTable(theme, self)
        self.view = PossibleView(self.table)
        self.choice = ChoicePanel(theme)
        self.progress = TransferBar(theme)
        self.outcome = OutcomePanel(theme)
        self._lay_out()
        self._connect()
        self._update()

    # --- what the window and other pages ask ---

    def dot(self) -> bool:
        """Whether a conversion ended that was not looked at."""
        return self._dot

    def open_model(self, name: str) -> None:
        """See what the model called `name`, a Hub id, a folder or a file, can become."""
        source, state = self.conversion.source, self.conversion.state
        asked = state == "looking" and source is not None and source.name == name
        if not name or state == "converting" or asked:
            return
        if all(choice.name != name for choice in self._choices()):
            self._opened.insert(0, model_choices.folder(name))
        self._output = ""
        self.table.show_rows(())
        self.looking.begin(self.tr("Reading {}").format(model_choices.short_name(name)))
        self.conversion.look(name)

    def showEvent(self, event: QShowEvent) -> None:
        """Look for finished models again, and take what another page asked for."""
        super().showEvent(event)
        self._set_dot(False)
        self._made.look()
        self._update()
        wanted = self._context.state.value(REQUEST, "")
        if wanted:
            self._context.state.set_value(REQUEST, "")
            self.open_model(wanted)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Esc ends what goes on; where nothing does, it is the window's."""
        if event.key() == Qt.Key.Key_Escape and self.conversion.busy:
            self.stop()
            event.accept()
        else:
            super().keyPressEvent(event)

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        """Take a model; all else is for the window."""
        if self._model_in(words_of(event.mimeData())):
            event.acceptProposedAction()
        else:
            event.ignore()

    def dropEvent(self, event: QDropEvent) -> None:
        """Convert what is dropped."""
        event.acceptProposedAction()
        self.open_model(self._model_in(words_of(event.mimeData())))

    # --- what the user does ---

    def convert(self) -> None:
        """Convert the chosen row, if nothing stands against it."""
        row = self.view.current
        if row is None or self.conversion.state != "ready":
            return
        if self.choice.obstacle:
            self._context.show_message(self.choice.obstacle)
            return
        self.progress.begin(conversion_words.stage_text("", self._label(), row.format))
        self.conversion.convert(row.format, str(self._target(row)), inexact=self.choice.allow.isChecked())
        self.progress.cancel.setFocus(Qt.FocusReason.OtherFocusReason)

    def stop(self) -> None:
        """End what is under way."""
        converting = self.conversion.state == "converting"
        self.conversion.stop()
        if converting:
            self._context.show_message(self.tr("The conversion was stopped; nothing was left behind."))
            self.view.setFocus(Qt.FocusReason.OtherFocusReason)

    # --- made once ---

    def _lay_out(self) -> None:
        self._foot = [self.choice, self.progress, self.outcome]
        body = QWidget()
        column = QVBoxLayout(body)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(12)
        column.addWidget(self.view, 1)
        for part in self._foot:
            column.addWidget(part)
        waiting = QWidget()
        middle = QVBoxLayout(waiting)
        middle.setContentsMargins(0, 16, 0, 0)
        middle.addWidget(self.looking)
        middle.addStretch(1)
        self._stack = ViewStack()
        self._welcome_place, self._waiting_place, self._body_place = self.welcome, waiting, body
        for place in (self.welcome, waiting, body):
            self._stack.addWidget(place)
        inner = QWidget()
        inner.setMaximumWidth(_WIDEST)
        whole = QVBoxLayout(inner)
        whole.setContentsMargins(0, 0, 0, 0)
        whole.setSpacing(12)
        whole.addWidget(self.source)
        whole.addWidget(self._stack, 1)
        row = QHBoxLayout(self)
        row.setContentsMargins(24, 16, 24, 16)
        row.addStretch(1)
        row.addWidget(inner, 1000)
        row.addStretch(1)
        self.setAcceptDrops(True)

    def _connect(self) -> None:
        self.source.picked.connect(self.open_model)
        self.welcome.picked.connect(self.open_model)
        self.welcome.folder_wanted.connect(self.source.choose_folder)
        self._made.changed.connect(self._update)
        self.conversion.changed.connect(self._update)
        self.conversion.progressed.connect(self._follow)
        self.conversion.ended.connect(self._ended)
        self.conversion.failed.connect(self._failed)
        self.looking.cancelled.connect(self.stop)
        self.progress.cancelled.connect(self.stop)
        self.view.chosen.connect(self._chosen)
        self.view.wanted.connect(lambda _row: self.convert())
        self.choice.asked.connect(self.convert)
        self.choice.output_chosen.connect(self._set_output)
        self.outcome.again_wanted.connect(self._again)
        self.outcome.folder_wanted.connect(self._open_folder)
        self.outcome.chat_wanted.connect(self._start_chat)
        choose = QAction(self.tr("Open a model folder"), self)
        choose.setShortcut(QKeySequence("Ctrl+O"))
        choose.setShortcutContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
        choose.triggered.connect(self.source.choose_folder)
        self.addAction(choose)

    # --- what is shown ---

    def _update(self) -> None:
        """Bring everything that is offered in line with the state."""
        conversion, state = self.conversion, self.conversion.state
        picked = conversion.source.name if conversion.source is not None else ""
        self.source.set_choices(self._choices(), picked)
        self.source.setEnabled(state != "converting")
        self.welcome.show_newest(self._made.choices[0] if self._made.choices else None)
        problem = conversion.problem if state == "refused" else None
        self.welcome.show_error(f"{problem.message} {for_the_window(problem.hint)}" if problem is not None else "")
        places = {"empty": self._welcome_place, "refused": self._welcome_place, "looking": self._waiting_place}
        self._stack.setCurrentWidget(places.get(state, self._body_place))
        shown = {"ready": self.choice, "converting": self.progress, "done": self.outcome}.get(state)
        for part in self._foot:
            part.setVisible(part is shown)
        if state == "ready":
            self._show_rows()
        elif state == "done" and conversion.made is not None:
            self.outcome.show_outcome(conversion_words.outcome(conversion.made))
        if state in ("empty", "looking", "refused") or conversion.source is None:
            self.source.show_message("")
        else:
            self.source.show_message(conversion.source.words, exact=picked)

    def _show_rows(self) -> None:
        if self.table.first() < 0 and self.conversion.rows:
            self.table.show_rows(self.conversion.rows)
            self.view.choose_first(self.conversion.source.kind if self.conversion.source is not None else "")
            self.view.setFocus(Qt.FocusReason.OtherFocusReason)
        self._show_choice()

    def _chosen(self, _row: ConversionOption | None) -> None:
        """Another row: a result that was shown makes way for it."""
        if self.conversion.state == "done":
            self.conversion.again()
        else:
            self._show_choice()

    def _show_choice(self) -> None:
        row = self.view.current
        self.choice.show_row(row, self._output, self._target(row))

    def _target(self, row: ConversionOption | None) -> Path:
        """The folder that the conversion will make."""
        if self._output:
            return Path(self._output)
        stem = self._label().removesuffix(".gguf").split(" ")[0] or "model"
        return free_name(home() / "models" / f"{stem}-{folder_name(row.format) if row is not None else 'converted'}")

    def _label(self) -> str:
        return self.conversion.source.label if self.conversion.source is not None else ""

    def _choices(self) -> list[ModelChoice]:
        """Finished models, what was opened here, then what was opened on the Model page."""
        recent = [model_choices.folder(name) for name in self._context.state.recent if name != DEMO]
        return model_choices.merged(self._made.choices, self._opened, recent)

    def _set_output(self, folder: str) -> None:
        self._output = folder
        self._show_choice()

    # --- what the service says ---

    def _follow(self, event: Event) -> None:
        bar = self.progress if self.conversion.state == "converting" else self.looking
        if isinstance(event, Stage) and self.conversion.state == "converting":
            bar.begin(conversion_words.stage_text(event.name, self._label(), self.conversion.target))
        else:
            bar.follow(event)

    def _ended(self, made: ConvertedModel) -> None:
        self.progress.end()
        self._output = ""
        found = conversion_words.outcome(made)
        words = self.tr("{0} is written: {1}.").format(self._label(), found.headline[:1].lower() + found.headline[1:])
        self._context.show_message(words)
        announce(self, words)
        notification.show(self.tr("The conversion is done"), words)
        if self.isVisible():
            self.outcome.chat.setFocus(Qt.FocusReason.OtherFocusReason)
        else:
            self._set_dot(True)

    def _failed(self, error: BitwrightError, converting: bool) -> None:
        (self.progress if converting else self.looking).end()
        if converting:
            self._context.report(error, Remedy(self.tr("Try again"), self._try_again))
        elif not self.isVisible():
            self._context.report(error, None)

    def _try_again(self) -> None:
        self._context.go(self.page_id)
        self.convert()

    # --- after a conversion ---

    def _again(self) -> None:
        """Back to the table, with the row that was converted."""
        self.conversion.again()
        self.view.setFocus(Qt.FocusReason.OtherFocusReason)

    def _start_chat(self) -> None:
        if self.conversion.made is not None:
            self._context.state.set_value("chat/model", self.conversion.made.output)
        self._context.go("chat")

    def _open_folder(self) -> None:
        folder = self.conversion.made.output if self.conversion.made is not None else ""
        if QDesktopServices.openUrl(QUrl.fromLocalFile(folder)):
            return
        copy = Remedy(self.tr("Copy the path"), lambda: QGuiApplication.clipboard().setText(folder))
        self._context.report(OutputProblem("No file manager opened the folder.", f"It is {folder}."), copy)

    # --- small things ---

    def _set_dot(self, dot: bool) -> None:
        if dot != self._dot:
            self._dot = dot
            self.dot_changed.emit()

    @staticmethod
    def _model_in(words: str) -> str:
        """The model that dropped words mean, "" for none."""
        try:
            target = target_of(words) if words else None
        except BitwrightError:
            return ""
        return target.value if target is not None and target.kind == "model" else ""
