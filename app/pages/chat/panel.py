"""The right side of the chat page: model, device, figures of the last answer, system prompt and sampling.

Puts widgets together and turns a loaded model into sentences; decides nothing.
"""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFrame, QPlainTextEdit, QScrollArea, QVBoxLayout, QWidget

from app.chat_session import Opened
from app.context import Context
from app.pages.chat.device import ChatDevice
from app.pages.chat.figures import ChatFigures
from app.pages.chat.models import ChatModels
from app.pages.chat.sampling_panel import SamplingPanel
from app.widgets.tinted_label import TintedLabel
from core.wording import human

WIDTH = 304


class ChatPanel(QScrollArea):
    """A column that scrolls where the window is low."""

    def __init__(self, context: Context, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.models = ChatModels(context.theme)
        self.device = ChatDevice(context.theme)
        self.figures = ChatFigures()
        self.sampling = SamplingPanel(context.state)
        self._system = QPlainTextEdit()
        self._system.setObjectName("system_prompt")
        self._system.setPlaceholderText(self.tr("Such as: You answer in one sentence."))
        self._system.setToolTip(self.tr("Said to the model before the conversation, to set its role and tone"))
        self._system.setTabChangesFocus(True)
        self._system.setFixedHeight(self._system.fontMetrics().lineSpacing() * 3 + 16)
        self._system.setPlainText(context.state.value("chat/system", ""))
        self._system.textChanged.connect(lambda: context.state.set_value("chat/system", self.system))
        system_label = TintedLabel(context.theme, self.tr("S&ystem prompt"), bold=True)
        system_label.setBuddy(self._system)
        inner = QWidget()
        column = QVBoxLayout(inner)
        column.setContentsMargins(8, 8, 16, 16)
        column.setSpacing(16)
        column.addWidget(self.models)
        column.addWidget(self.device)
        column.addWidget(_titled(context, self.tr("Last answer"), self.figures))
        system = QVBoxLayout()
        system.setSpacing(4)
        system.addWidget(system_label)
        system.addWidget(self._system)
        column.addLayout(system)
        column.addWidget(_titled(context, self.tr("Sampling"), self.sampling))
        column.addStretch(1)
        self.setWidget(inner)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setFixedWidth(WIDTH)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.viewport().setAutoFillBackground(False)
        inner.setAutoFillBackground(False)
        self.setAccessibleName(self.tr("Model and settings"))

    @property
    def system(self) -> str:
        """The system prompt, "" for none."""
        return self._system.toPlainText()

    def show_opened(self, opened: Opened | None) -> None:
        """Say how the loaded model is held and computed, or how it will be."""
        if opened is None:
            self.device.set_backend(
                self.tr("Computed by torch. Quantized layers become plain numbers once, when the model loads.")
            )
        elif opened.schemes:
            self.device.set_backend(
                self.tr("On {device}: dequantized once to {dtype}, torch").format(
                    device=opened.device_name or opened.device, dtype=opened.dtype
                )
            )
        else:
            self.device.set_backend(
                self.tr("On {device}: {dtype}, torch").format(
                    device=opened.device_name or opened.device, dtype=opened.dtype
                )
            )


def describe(opened: Opened) -> str:
    """What a loaded model is, in a line: `116 MB; 210 layers W4 g64 sym`."""
    parts = [human(opened.weight_bytes)] if opened.weight_bytes else []
    most = sorted(opened.schemes.items(), key=lambda item: -item[1])[:2]
    parts += [f"{count:,} layers {label}" for label, count in most]
    if len(opened.schemes) > 2:
        parts.append("and others")
    if not opened.schemes:
        parts.append("not quantized")
    return ", ".join(parts)


def _titled(context: Context, title: str, widget: QWidget) -> QWidget:
    box = QWidget()
    column = QVBoxLayout(box)
    column.setContentsMargins(0, 0, 0, 0)
    column.setSpacing(4)
    column.addWidget(TintedLabel(context.theme, title, bold=True))
    column.addWidget(widget)
    return box
