"""The Convert page: select a model, see the possible conversions, and convert it to another format.

Connects the calls (`app.pages.convert.conversion`) and the widgets. Only `_update` decides which widgets are shown.
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
"""Key of the state in which other pages store the model to convert, before they show this page."""
_WIDEST = 1320


class ConvertPage(QWidget):
    """The page of conversions.

    Signals:
        dot_changed: `dot` may have changed.
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

    # --- interface for the window and other pages ---

    def dot(self) -> bool:
        """Return whether a conversion has ended since the page was last visible."""
        return self._dot

    def open_model(self, name: str) -> None:
        """Show the possible conversions of a model: a Hub id, a folder or a file."""
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
        """Update the finished models, and open the model that another page stored."""
        super().showEvent(event)
        self._set_dot(False)
        self._made.look()
        self._update()
        wanted = self._context.state.value(REQUEST, "")
        if wanted:
            self._context.state.set_value(REQUEST, "")
            self.open_model(wanted)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Handle Esc, which cancels an active call; otherwise pass it to the window."""
        if event.key() == Qt.Key.Key_Escape and self.conversion.busy:
            self.stop()
            event.accept()
        else:
            super().keyPressEvent(event)

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        """Accept a model; leave everything else to the window."""
        if self._model_in(words_of(event.mimeData())):
            event.acceptProposedAction()
        else:
            event.ignore()

    def dropEvent(self, event: QDropEvent) -> None:
        """Open the dropped model."""
        event.acceptProposedAction()
        self.open_model(self._model_in(words_of(event.mimeData())))

    # --- user actions ---

    def convert(self) -> None:
        """Convert to the selected format, if there is no obstacle."""
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
        """Cancel the active call."""
        converting = self.conversion.state == "converting"
        self.conversion.stop()
        if converting:
            self._context.show_message(self.tr("The conversion was cancelled. Its files were removed."))
            self.view.setFocus(Qt.FocusReason.OtherFocusReason)

    # --- construction ---

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
        choose = QAction(self.tr("Open model folder"), self)
        choose.setShortcut(QKeySequence("Ctrl+O"))
        choose.setShortcutContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
        choose.triggered.connect(self.source.choose_folder)
        self.addAction(choose)

    # --- display ---

    def _update(self) -> None:
        """Update all widgets for the current state."""
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
        """Show another row; replaces a result."""
        if self.conversion.state == "done":
            self.conversion.again()
        else:
            self._show_choice()

    def _show_choice(self) -> None:
        row = self.view.current
        self.choice.show_row(row, self._output, self._target(row))

    def _target(self, row: ConversionOption | None) -> Path:
        """Return the output folder of the conversion."""
        if self._output:
            return Path(self._output)
        stem = self._label().removesuffix(".gguf").split(" ")[0] or "model"
        return free_name(home() / "models" / f"{stem}-{folder_name(row.format) if row is not None else 'converted'}")

    def _label(self) -> str:
        return self.conversion.source.label if self.conversion.source is not None else ""

    def _choices(self) -> list[ModelChoice]:
        """Return the finished models, then models opened here, then models opened on the Model page."""
        recent = [model_choices.folder(name) for name in self._context.state.recent if name != DEMO]
        return model_choices.merged(self._made.choices, self._opened, recent)

    def _set_output(self, folder: str) -> None:
        self._output = folder
        self._show_choice()

    # --- results of the service ---

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
        words = self.tr("{0} was converted: {1}.").format(
            self._label(), found.headline[:1].lower() + found.headline[1:]
        )
        self._context.show_message(words)
        announce(self, words)
        notification.show(self.tr("Conversion finished"), words)
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

    # --- actions after a conversion ---

    def _again(self) -> None:
        """Return to the table, with the converted row selected."""
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
        self._context.report(
            OutputProblem("The folder could not be opened in a file manager.", f"Its path is {folder}."), copy
        )

    # --- details ---

    def _set_dot(self, dot: bool) -> None:
        if dot != self._dot:
            self._dot = dot
            self.dot_changed.emit()

    @staticmethod
    def _model_in(words: str) -> str:
        """Return the model that a dropped path or link stands for; "" for none."""
        try:
            target = target_of(words) if words else None
        except BitwrightError:
            return ""
        return target.value if target is not None and target.kind == "model" else ""
