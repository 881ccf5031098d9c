"""The comparison of two models: one composer, two answers, their statistics and differences.

Connects the session and the widgets; only `_update` decides which widgets are enabled. The page hides the view when one
model is wanted again; a minute later both models are unloaded, or at once by `unload`.
"""

from __future__ import annotations

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtGui import QHideEvent, QKeyEvent, QShowEvent
from PySide6.QtWidgets import (
    QHBoxLayout,
    QLayout,
    QPushButton,
    QStyle,
    QVBoxLayout,
    QWidget,
)  # fmt: skip

from app.pages.chat.comparison.session import LEFT, RIGHT, ComparisonSession
from app.pages.chat.comparison.settings import ComparisonSettings
from app.pages.chat.comparison.side_header import SideHeader
from app.pages.chat.comparison.turn_list import TurnList, most_width
from app.pages.chat.comparison.turn_view import GAP
from app.pages.chat.comparison.turns import Turn, ending_of, likely_pair
from app.pages.chat.comparison.welcome import ComparisonWelcome
from app.pages.chat.composer import Composer
from app.pages.chat.following_scroll import MARGIN
from app.pages.chat.model_picker import KnownModels
from app.pages.chat.notice import ChatNotice
from app.pages.chat.pictures.drop import PictureDrop
from app.pages.chat.pictures.library import PictureLibrary
from app.shared.context import Context
from app.shared.models.choices import merged
from app.widgets.announcement import announce
from app.widgets.note import Note
from app.widgets.view_stack import ViewStack
from core.errors import BitwrightError

_PICKED = ("comparison/left", "comparison/right")
_DEVICES = ("comparison/left_device", "comparison/right_device")
_SHOWN = "comparison/settings"
_WIDE = 1300
_REST_MS = 60_000


class ComparisonView(QWidget):
    """The comparison.

    Signals:
        answered: both answers to a message are complete.
    """

    answered = Signal()

    def __init__(self, context: Context, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        theme = context.theme
        self._context = context
        self._session = ComparisonSession(context.calls, lambda: context.draft.machine, self)
        self._known = KnownModels(context, self)
        self._fitted = False
        self._heads = tuple(SideHeader(theme, side, self) for side in self._session.sides)
        self._welcome = ComparisonWelcome(theme, self)
        self._pictures = PictureLibrary(parent=self)
        self._turn_list = TurnList(theme, self._pictures, self)
        self._stack = ViewStack(self)
        self._stack.addWidget(self._welcome)
        self._stack.addWidget(self._turn_list)
        self._notice = ChatNotice(theme, self)
        self._plan = Note(theme, parent=self)
        self._plan.setObjectName("comparison_plan")
        self._slow = Note(theme, parent=self)
        self._slow.setObjectName("comparison_slow")
        self._again = self._button(
            "comparison_again", self.tr("Ask again"), self.tr("Send the last message to both models again")
        )
        self._clear = self._button("comparison_clear", self.tr("Clear"), self.tr("Start a new comparison"))
        self._show = self._button(
            "comparison_settings", self.tr("Settings"), self.tr("Order, system prompt and sampling")
        )
        self._show.setCheckable(True)
        self._refused: BitwrightError | None = None
        self._composer = Composer(theme, self._pictures, self)
        PictureDrop(self, self._composer)
        self._settings = ComparisonSettings(theme, context.state, self)
        self._settings.setVisible(bool(context.state.value(_SHOWN, False)))
        self._lay_out()
        # Four times a second: figures that change with every token are not readable.
        self._tick = QTimer(self, interval=250)
        self._tick.timeout.connect(self._show_speed)
        self._rest = QTimer(self, singleShot=True, interval=_REST_MS)
        self._rest.timeout.connect(self._rest_unseen)
        self._connect()
        self._show_devices()
        self._refresh()

    @property
    def session(self) -> ComparisonSession:
        """The sides and the turns."""
        return self._session

    def open_pair(self, left: str, right: str) -> None:
        """Compare these two models; "" leaves a side unchanged."""
        for place, name in enumerate((left, right)):
            if name:
                self._pick(place, name)

    def ask(self, question: str, pictures: tuple[str, ...] = ()) -> None:
        """Send a message to both models."""
        self._refused = None
        self._session.order = self._settings.order
        self._session.ask(question, self._settings.values(), self._settings.system, pictures)

    def stop(self) -> None:
        """Stop both answers."""
        self._session.stop()

    def unload(self) -> None:
        """Unload both models."""
        self._session.unload()

    def showEvent(self, event: QShowEvent) -> None:
        """Update the models; if there is space, open the settings unless the user closed them."""
        super().showEvent(event)
        self._rest.stop()
        self._known.rescan()
        self._settings.read()
        if not self._fitted:
            self._fitted = True
            remembered = self._context.state.value(_SHOWN, None)
            self._show.setChecked(bool(remembered) if remembered is not None else self.width() >= _WIDE)
            self._settings.setVisible(self._show.isChecked())
            self._update()
        self._composer.setFocus()

    def hideEvent(self, event: QHideEvent) -> None:
        """Unload later if the chat with one model is shown; not if another page is."""
        super().hideEvent(event)
        if self.isHidden():
            self._rest.start()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Handle Esc, which stops an activity; otherwise pass it to the window."""
        if event.key() == Qt.Key.Key_Escape and self._session.busy:
            self.stop()
            event.accept()
        else:
            super().keyPressEvent(event)

    def _rest_unseen(self) -> None:
        if self._session.busy:
            self._rest.start()
        elif any(side.session.state != "idle" for side in self._session.sides):
            self.unload()
            self._context.show_message(self.tr("The compared models were unloaded."))

    # --- construction ---

    def _lay_out(self) -> None:
        heads = QHBoxLayout()
        heads.setContentsMargins(0, 8, 0, 0)
        heads.setSpacing(GAP)
        for head in self._heads:
            heads.addWidget(head, 1, Qt.AlignmentFlag.AlignTop)
        line = QHBoxLayout()
        line.setSpacing(8)
        line.addWidget(self._plan, 1)
        line.addStretch(0)
        for button in (self._again, self._clear, self._show):
            line.addWidget(button, 0, Qt.AlignmentFlag.AlignBottom)
        foot = QVBoxLayout()
        foot.setContentsMargins(0, 0, 0, 16)
        foot.setSpacing(8)
        foot.addWidget(self._notice)
        foot.addWidget(self._slow)
        foot.addLayout(line)
        foot.addWidget(self._composer)
        column = QVBoxLayout()
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(8)
        column.addLayout(self._centred(heads))
        column.addWidget(self._stack, 1)
        column.addLayout(self._centred(foot))
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(0)
        row.addLayout(column, 1)
        row.addWidget(self._settings)

    def _centred(self, inner: QLayout) -> QHBoxLayout:
        """Return `inner` in a row with the width of the columns, excluding the scroll bar."""
        box = QWidget(self)
        box.setLayout(inner)
        box.setMaximumWidth(most_width(self))
        bar = self.style().pixelMetric(QStyle.PixelMetric.PM_ScrollBarExtent)
        row = QHBoxLayout()
        left, right = (MARGIN + bar, MARGIN) if self.isRightToLeft() else (MARGIN, MARGIN + bar)
        row.setContentsMargins(left, 0, right, 0)
        row.addWidget(box)
        return row

    def _connect(self) -> None:
        session, context = self._session, self._context
        for place, head in enumerate(self._heads):
            head.picked.connect(lambda name, place=place: self._pick(place, name))
            head.opened.connect(lambda name, place=place: self._pick(place, name))
            head.device_picked.connect(lambda device, place=place: self._pick_device(place, device))
            session.sides[place].device = context.state.value(_DEVICES[place], "auto")
            head.load_asked.connect(lambda place=place: self._press_load(place))
        session.changed.connect(self._update)
        session.asked.connect(self._on_asked)
        session.grew.connect(self._on_grown)
        session.compared.connect(self._on_compared)
        session.finished.connect(self._tick.stop)
        session.finished.connect(self.answered)
        session.cleared.connect(self._on_cleared)
        self._turn_list.measure_asked.connect(self._measure)
        self._composer.sent.connect(self.ask)
        self._composer.stop_asked.connect(self.stop)
        self._composer.pictures_edited.connect(lambda: self._refuse(None))
        self._composer.refused.connect(self._refuse)
        self._pictures.failed.connect(lambda error: context.report(error, None))
        self._pictures.told.connect(context.show_message)
        self._welcome.chosen.connect(self.ask)
        self._welcome.model_asked.connect(lambda: context.go("model"))
        self._again.clicked.connect(self._ask_again)
        self._clear.clicked.connect(session.clear)
        self._show.clicked.connect(self._toggle_settings)
        self._settings.order_changed.connect(self._take_order)
        self._settings.marks_changed.connect(self._mark)
        self._known.found.connect(self._refresh)
        context.draft.machine_changed.connect(self._show_devices)
        context.draft.model_changed.connect(self._refresh)
        context.runs.changed.connect(self._show_slow)
        self._session.order = self._settings.order

    def _button(self, name: str, text: str, explained: str) -> QPushButton:
        button = QPushButton(text, self)
        button.setObjectName(name)
        button.setToolTip(explained)
        button.setAutoDefault(False)
        return button

    # --- user actions ---

    def _pick(self, place: int, name: str) -> None:
        self._known.add_folder(name)
        self._context.state.set_value(_PICKED[place], name)
        self._session.sides[place].pick(next(each for each in self._known.choices if each.name == name))
        self._refresh()

    def _pick_device(self, place: int, device: str) -> None:
        self._context.state.set_value(_DEVICES[place], device)
        self._session.sides[place].pick_device(device)

    def _press_load(self, place: int) -> None:
        side = self._session.sides[place]
        if side.session.state == "idle":
            side.load()
        elif self._session.busy:
            self.stop()
        else:
            side.session.close()

    def _measure(self, place: int) -> None:
        side = self._session.sides[place]
        if side.measured >= 0:
            side.session.stop()
        elif side.session.state == "ready":
            side.measure()

    def _refuse(self, error: BitwrightError | None) -> None:
        """Show the reason why a picture was not attached, or none."""
        self._refused = error
        self._show_notice()

    def _ask_again(self) -> None:
        self._session.order = self._settings.order
        self._session.ask_again(self._settings.values(), self._settings.system)

    def _toggle_settings(self, shown: bool) -> None:
        self._context.state.set_value(_SHOWN, shown)
        self._settings.setVisible(shown)
        self._update()

    def _take_order(self) -> None:
        self._session.order = self._settings.order
        self._update()

    # --- reactions ---

    def _show_devices(self) -> None:
        for head in self._heads:
            head.set_devices(self._context.draft.machine)

    def _on_asked(self) -> None:
        self._turn_list.add(self._session.turns[-1])
        self._tick.start()
        self._update()

    def _on_grown(self, place: int) -> None:
        if self._turn_list.turns:
            self._turn_list.turns[-1].show_reply(place, self._speed(place))

    def _on_compared(self, turn: Turn) -> None:
        for view in self._turn_list.turns:
            if view.turn is turn:
                view.show_comparison(self._settings.marked)
                if self.isVisible():
                    announce(self, view.verdict)

    def _on_cleared(self) -> None:
        self._turn_list.show_turns(self._session.turns)
        self._mark()

    def _mark(self) -> None:
        for turn in self._turn_list.turns:
            turn.show_comparison(self._settings.marked)

    # --- display ---

    def _refresh(self) -> None:
        """Update the models; a side without one takes the last compared or a likely one."""
        choices = self._known.choices
        model = self._context.draft.model
        likely = likely_pair(choices)
        for place, side in enumerate(self._session.sides):
            if model is not None:
                side.expect(model.name, model.tree.nbytes)
            remembered = self._context.state.value(_PICKED[place], "")
            found = next((each for each in choices if each.name == remembered), None)
            if not side.name and (found or self._known.scanned):
                side.pick(found or likely[place])
            shown = choices if not side.name else merged(choices, [side.choice] if side.choice else [])
            self._heads[place].set_choices(shown)
        self._update()

    def _update(self) -> None:
        """Update all widgets for the current state."""
        session = self._session
        busy, empty = session.busy, not session.turns
        plan = session.plan()
        self._settings.show_plan(plan.words if session.ready else "", plan.role)
        told = session.ready and not busy and self._settings.isHidden()
        self._plan.set_text(plan.words if told else "", plan.role)
        self._stack.setCurrentWidget(self._welcome if empty else self._turn_list)
        self._welcome.set_ready(session.ready, bool(self._known.choices) or not self._known.scanned)
        self._composer.set_state(busy, session.stopping, session.ready)
        for button in (self._again, self._clear):
            button.setVisible(not empty)
            button.setEnabled(not busy and (button is self._clear or session.ready))
        blind = [side.blind for side in session.sides]
        self._composer.set_blind(self.tr("Neither model reads pictures.") if all(blind) else "")
        self._show_notice()
        self._show_slow()
        self._update_turns(busy)

    def _show_notice(self) -> None:
        session = self._session
        if self._refused is not None:
            words, button = str(self._refused), self.tr("Dismiss")
            self._notice.show_message(words, button, lambda: self._refuse(None), role="warning")
        elif not session.turns and session.cleared_turns:
            self._notice.show_message(self.tr("The comparison was cleared."), self.tr("Undo"), session.restore_turns)
        else:
            self._notice.hide()

    def _show_slow(self) -> None:
        words = self.tr("A run is active. Both the run and the answers are slower.")
        self._slow.set_text(words if self._context.runs.active else "", "warning")

    def _update_turns(self, busy: bool) -> None:
        turns = self._turn_list.turns
        for number, turn in enumerate(turns):
            last = number == len(turns) - 1
            for place, side in enumerate(self._session.sides):
                turn.show_reply(place, self._speed(place) if last else 0.0)
                idle = side.session.state in ("ready", "measuring")
                missing = last and not busy and idle and not side.perplexity
                turn.figures[place].show_measuring(missing, side.measured)
            if last and busy:
                turn.show_status(self._status())
            else:
                turn.show_status(ending_of(turn.turn))

    def _status(self) -> str:
        """Return the activity of both sides while answers are pending."""
        words = {
            "loading": self.tr("{letter} is loading"),
            "answering": self.tr("{letter} is generating"),
        }
        parts = []
        for place, side in enumerate(self._session.sides):
            reply = self._session.turns[-1].replies[place]
            if not reply.done:
                text = words.get(side.session.state, self.tr("{letter} is waiting"))
                parts.append(text.format(letter=side.letter))
        return ", ".join(parts) + "." if parts else ""

    def _speed(self, place: int) -> float:
        side = self._session.sides[place]
        return side.session.figures.tokens_per_second if side.session.state == "answering" else 0.0

    def _show_speed(self) -> None:
        for place in (LEFT, RIGHT):
            if self._turn_list.turns and self._session.busy:
                self._turn_list.turns[-1].show_reply(place, self._speed(place))
