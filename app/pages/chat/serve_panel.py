"""The switch of a local endpoint that is compatible with OpenAI's API.

Off by default, on loopback only, and protected by a token that is shown once. Uses the model and the device of the
session. The endpoint has a child process of its own, so the model is loaded a second time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import (
    QCheckBox,
    QHBoxLayout,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)  # fmt: skip

from app.pages.chat.comparison.turns import SideMemory, free_for
from app.shared.context import Context
from app.shared.models import choices as model_choices
from app.widgets.elided_label import ElidedLabel
from app.widgets.note import Note
from app.widgets.tinted_label import TintedLabel
from app.widgets.wheel_guard import WheelGuard
from core.errors import BitwrightError
from core.events import Event, Listening, Log, Progress
from core.service.messages import ServeModel
from core.wording import human

if TYPE_CHECKING:
    from app.pages.chat.session import ChatSession
    from app.shared.calls.thread import Call

PORT: Final = 8765
_PORT_KEY: Final = "serve/port"


class ServePanel(QWidget):
    """The endpoint of a window."""

    def __init__(self, context: Context, session: ChatSession | None, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        theme = context.theme
        self._context, self._session = context, session
        self._call: Call | None = None
        self._listening: Listening | None = None
        self._requests = 0
        self._last = ""
        self._switch = QCheckBox(self.tr("&OpenAI-compatible server"), self)
        self._switch.setObjectName("serve")
        self._switch.setToolTip(self.tr("Make the loaded model available to other programs on this machine"))
        self._switch.clicked.connect(self._turn)
        self._port = QSpinBox(self)
        self._port.setObjectName("serve_port")
        self._port.setRange(1024, 65535)
        self._port.setValue(context.state.value(_PORT_KEY, PORT))
        self._port.setToolTip(self.tr("Port of the server on 127.0.0.1"))
        self._port.valueChanged.connect(lambda port: context.state.set_value(_PORT_KEY, port))
        WheelGuard(self._port)
        port_label = TintedLabel(theme, self.tr("P&ort"), parent=self)
        port_label.setBuddy(self._port)
        self._bar = QProgressBar(self)
        self._bar.setTextVisible(False)
        self._bar.setFixedHeight(6)
        self._bar.setAccessibleName(self.tr("Loading the model for the server"))
        self._note = Note(theme, parent=self)
        self._note.setObjectName("serve_note")
        self._running = _Running(context, self)
        self._running.setObjectName("serve_running")
        head = QHBoxLayout()
        head.setSpacing(8)
        head.addWidget(self._switch, 1)
        head.addWidget(port_label)
        head.addWidget(self._port)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addWidget(TintedLabel(theme, self.tr("Local server"), bold=True, parent=self))
        column.addLayout(head)
        for widget in (self._bar, self._note, self._running):
            column.addWidget(widget)
        if session is not None:
            session.changed.connect(self._update)
        self._update()

    @property
    def serving(self) -> bool:
        """Return whether the endpoint is active or starting."""
        return self._call is not None

    def stop(self) -> None:
        """Stop the endpoint."""
        call, self._call, self._listening = self._call, None, None
        if call is not None:
            call.stop()
            self._context.show_message(self.tr("Server stopped."))
        self._update()

    def _turn(self, on: bool) -> None:
        if not on:
            self.stop()
            return
        session = self._session
        if session is None or session.state == "idle":
            self._update()
            return
        self._requests, self._last = 0, ""
        self._note.set_text("")
        self._call = self._context.calls.start(
            ServeModel(session.model, session.device, session.backend or "auto", port=self._port.value()),
            on_success=lambda _summary: self._ended(),
            on_failure=self._failed,
            on_event=self._handle_event,
        )
        self._running.begin(session.model)
        self._bar.setRange(0, 0)
        self._update()

    def _handle_event(self, event: Event) -> None:
        if self._call is None:
            return
        if isinstance(event, Listening):
            self._listening = event
            self._running.show_endpoint(event)
            self._context.show_message(self.tr("Server running at {url}.").format(url=event.url))
        elif isinstance(event, Progress) and self._listening is None and event.fraction >= 0:
            self._bar.setRange(0, 1000)
            self._bar.setValue(round(1000 * event.fraction))
        elif isinstance(event, Log):
            if self._listening is None:
                self._last = event.message
            elif event.message.startswith("/"):
                self._requests += 1
                self._last = event.message
            self._running.count(self._requests, self._last)
        self._update()

    def _failed(self, error: BitwrightError) -> None:
        self._ended()
        self._note.set_text(str(error), "bad")

    def _ended(self) -> None:
        self._call, self._listening = None, None
        self._update()

    def _update(self) -> None:
        """Update the widgets for the current state."""
        session, on = self._session, self.serving
        there = session is not None and session.state not in ("idle", "loading")
        self._switch.setChecked(on)
        self._switch.setEnabled(on or there)
        self._port.setEnabled(not on)
        self._bar.setVisible(on and self._listening is None)
        self._running.setVisible(on and self._listening is not None)
        if on and self._listening is None:
            self._note.set_text(self._last or self.tr("Loading the model for the server"))
        elif on and session is not None and self._running.model != session.model and there:
            other = model_choices.short_name(self._running.model)
            self._note.set_text(self.tr("Still serving {model}.").format(model=other))
        elif on:
            self._note.set_text("")
        elif not there:
            self._note.set_text(self.tr("Load a model to make it available to other programs on this machine."))
        elif self._note.role != "bad":
            self._note.set_text(*self._offer())

    def _offer(self) -> tuple[str, str]:
        """Return a text about the effect of the switch, and its color role."""
        words = self.tr("Off. The server is reachable from this machine only. It loads the model a second time.")
        if self._session is None:
            return words, "muted"
        opened = self._session.opened
        machine = self._context.draft.machine
        more = SideMemory(opened.label, opened.device, opened.weight_bytes).more
        free = free_for(machine, [opened.device]).get(opened.device)
        if free is not None and more > free:
            short = self.tr("It needs about {more} of memory; {free} is free.")
            return f"{words} {short.format(more=human(more), free=human(free))}", "warning"
        return words, "muted"


class _Running(QWidget):
    """The address, the token and the requests of an active endpoint."""

    def __init__(self, context: Context, parent: QWidget) -> None:
        super().__init__(parent)
        theme = context.theme
        self._context = context
        self.model = ""
        """The model that it serves, as in `LoadModel`."""
        self._url = _field(self, "serve_url", self.tr("Server address"))
        self._token = _field(self, "serve_token", self.tr("API token"))
        self._copy_url = _copy_button(self, "serve_copy_url", self.tr("Copy address"))
        self._copy_url.clicked.connect(lambda: self._to_clipboard(self._url.text()))
        self._copy_token = _copy_button(self, "serve_copy_token", self.tr("Copy token; it is shown only once"))
        self._copy_token.clicked.connect(self._take_token)
        self._token_note = Note(theme, parent=self)
        self._token_note.setObjectName("serve_token_note")
        self._serves = ElidedLabel(theme, role="muted", parent=self)
        self._serves.setObjectName("serve_model")
        self._counter = ElidedLabel(theme, parent=self)
        self._counter.setObjectName("serve_requests")
        self._example = QPushButton(self.tr("Copy Python example"), self)
        self._example.setObjectName("serve_example")
        self._example.setToolTip(self.tr("Example for the openai package; set OPENAI_API_KEY to the token"))
        self._example.clicked.connect(lambda: self._to_clipboard(self._snippet()))
        self._name = ""
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        for field, button in ((self._url, self._copy_url), (self._token, self._copy_token)):
            row = QHBoxLayout()
            row.setSpacing(8)
            row.addWidget(field, 1)
            row.addWidget(button)
            column.addLayout(row)
        for widget in (self._token_note, self._serves, self._counter, self._example):
            column.addWidget(widget)

    def begin(self, model: str) -> None:
        """Reset for an endpoint that will serve `model`."""
        self.model = model
        self._token.clear()

    def show_endpoint(self, endpoint: Listening) -> None:
        """Show the address and, once, the token."""
        self._name = endpoint.model
        self._url.setText(f"{endpoint.url}/v1")
        self._token.setText(endpoint.token)
        self._token.setCursorPosition(0)
        self._show_token(bool(endpoint.token))
        self._serves.set_text(self.tr("Serving {model}").format(model=endpoint.model), self.model)
        self.count(0, "")

    def count(self, requests: int, last: str) -> None:
        """Show the number of requests and the last one."""
        words = self.tr("1 request") if requests == 1 else self.tr("{:,} requests").format(requests)
        self._counter.set_text(words if requests else self.tr("No requests yet"), last)

    def _take_token(self) -> None:
        self._to_clipboard(self._token.text())
        self._token.clear()
        self._show_token(False)
        self._context.show_message(self.tr("Token copied. It will not be shown again."))

    def _show_token(self, shown: bool) -> None:
        for widget in (self._token, self._copy_token):
            widget.setVisible(shown)
        self._token_note.set_text(
            self.tr("Clients must send this token. Copy it now; it is shown only once.")
            if shown
            else self.tr("Clients must send the copied token. Restart the server to get a new one.")
        )

    def _to_clipboard(self, text: str) -> None:
        QGuiApplication.clipboard().setText(text)

    def _snippet(self) -> str:
        return (
            "from openai import OpenAI\n\n"
            f'client = OpenAI(base_url="{self._url.text()}")  # the token is read from OPENAI_API_KEY\n'
            "answer = client.chat.completions.create(\n"
            f'    model="{self._name}", messages=[{{"role": "user", "content": "Hello"}}]\n'
            ")\n"
            "print(answer.choices[0].message.content)\n"
        )


def _field(parent: QWidget, name: str, accessible: str) -> QLineEdit:
    field = QLineEdit(parent)
    field.setObjectName(name)
    field.setAccessibleName(accessible)
    field.setReadOnly(True)
    field.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
    return field


def _copy_button(parent: QWidget, name: str, accessible: str) -> QPushButton:
    button = QPushButton(parent.tr("Copy"), parent)
    button.setObjectName(name)
    button.setAccessibleName(accessible)
    button.setToolTip(accessible)
    return button
