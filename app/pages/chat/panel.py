"""The right side of the chat page: model, device, backend, statistics, system prompt and sampling."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QPlainTextEdit, QVBoxLayout, QWidget

from app.pages.chat.backend_box import BackendBox, words_of
from app.pages.chat.device import ChatDevice
from app.pages.chat.model_picker import ChatModelPicker
from app.pages.chat.sampling_panel import SamplingPanel
from app.pages.chat.side_column import SideColumn
from app.pages.chat.statistics_table import StatisticsTable
from app.shared.context import Context
from app.widgets.tinted_label import TintedLabel
from core.inference.backends.backend import BackendRow
from core.service.messages import LoadedModel
from core.wording import figure, human


class ChatPanel(SideColumn):
    """A column that scrolls if the window is low.

    Signals:
        system_changed: the user edited the system prompt.
    """

    system_changed = Signal()

    def __init__(self, context: Context, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.models = ChatModelPicker(context.theme)
        self.device = ChatDevice(context.theme, context.state)
        self.backend = BackendBox(context.theme, context.state)
        self.figures = StatisticsTable()
        self.sampling = SamplingPanel(context.state)
        self._system = QPlainTextEdit()
        self._system.setObjectName("system_prompt")
        self._system.setPlaceholderText(self.tr("Example: You answer in one sentence."))
        self._system.setToolTip(self.tr("Instructions for the model, sent before the conversation"))
        self._system.setTabChangesFocus(True)
        self._system.setFixedHeight(self._system.fontMetrics().lineSpacing() * 3 + 16)
        self._system.setPlainText(context.state.value("chat/system", ""))
        self._state = context.state
        self._system.textChanged.connect(self._note_system)
        system_label = TintedLabel(context.theme, self.tr("S&ystem prompt"), bold=True)
        system_label.setBuddy(self._system)
        inner = QWidget()
        self._column = column = QVBoxLayout(inner)
        column.setContentsMargins(8, 8, 16, 16)
        column.setSpacing(16)
        column.addWidget(self.models)
        column.addWidget(self.device)
        column.addWidget(self.backend)
        column.addWidget(_titled(context, self.tr("Last answer"), self.figures))
        system = QVBoxLayout()
        system.setSpacing(4)
        system.addWidget(system_label)
        system.addWidget(self._system)
        column.addLayout(system)
        column.addWidget(_titled(context, self.tr("Sampling"), self.sampling))
        column.addStretch(1)
        self.hold(inner)
        self.setAccessibleName(self.tr("Model and settings"))

    @property
    def system(self) -> str:
        """The system prompt, "" for none."""
        return self._system.toPlainText()

    def set_system(self, text: str) -> None:
        """Show the system prompt of a conversation."""
        if text != self.system:
            self._system.setPlainText(text)

    def add_section(self, widget: QWidget) -> None:
        """Add a widget at the end; the column is widened if needed."""
        self._column.insertWidget(self._column.count() - 1, widget)
        self.fit_width()

    def show_opened(self, opened: LoadedModel | None, rows: Sequence[BackendRow]) -> None:
        """Show device, backends and data type of the loaded model, or of the next one.

        Args:
            opened: the loaded model, None for none.
            rows: the backends of the device, used if no model is loaded.
        """
        self.device.set_note(opened.device_note if opened is not None else "")
        self.backend.set_rows(opened.backends if opened is not None and opened.backends else rows)
        if opened is None:
            self.backend.set_used(self.tr("Each layer uses the fastest available backend."))
            return
        how = words_of(opened.backends, opened.runner)
        words = self.tr("On {device}: {how}, {dtype}") if how else self.tr("On {device}: {dtype}")
        self.backend.set_used(words.format(device=opened.device_name or opened.device, how=how, dtype=opened.dtype))

    def _note_system(self) -> None:
        self._state.set_value("chat/system", self.system)
        self.system_changed.emit()


def describe(opened: LoadedModel) -> str:
    """Return a line about a loaded model: `116 MB; 210 layers W4 g64 sym`."""
    parts = [human(opened.weight_bytes)] if opened.weight_bytes else []
    most = sorted(opened.schemes.items(), key=lambda item: -item[1])[:2]
    parts += [f"{count:,} layers {label}" for label, count in most]
    if len(opened.schemes) > 2:
        parts.append("and others")
    if not opened.schemes:
        parts.append(f"{opened.unpacked}, unpacked to 16 bits" if opened.unpacked else "not quantized")
    if opened.perplexity is not None:
        parts.append(f"perplexity {figure(opened.perplexity.value)}")
    return ", ".join(parts)


def _titled(context: Context, title: str, widget: QWidget) -> QWidget:
    box = QWidget()
    column = QVBoxLayout(box)
    column.setContentsMargins(0, 0, 0, 0)
    column.setSpacing(4)
    column.addWidget(TintedLabel(context.theme, title, bold=True))
    column.addWidget(widget)
    return box
