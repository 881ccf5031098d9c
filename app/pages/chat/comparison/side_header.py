"""The header of one side of a comparison: model, device, Load button, and state or error."""

from __future__ import annotations

import html
from collections.abc import Sequence

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QProgressBar, QPushButton, QSizePolicy, QVBoxLayout, QWidget

from app.pages.chat.comparison.side import ComparisonSide
from app.pages.chat.model_picker import ModelBox, choose_folder
from app.shared.models.choices import ModelChoice
from app.theme import Theme
from app.widgets.elided_box import ElidedBox
from app.widgets.elided_label import ElidedLabel
from app.widgets.note import Note
from app.widgets.tinted_label import TintedLabel
from core.inference.machine import Device, Machine
from core.wording import human

OPEN = "\0open"
"""Item data of the last entry, which opens a folder."""


class SideHeader(QWidget):
    """Two combo boxes, a button and a line of text.

    Signals:
        picked(str): the user selected the model of this name.
        opened(str): the user opened this folder.
        device_picked(str): the user selected the device of this id, or `auto`.
        load_asked: the Load button was pressed; its action depends on its text.
    """

    picked = Signal(str)
    opened = Signal(str)
    device_picked = Signal(str)
    load_asked = Signal()

    def __init__(self, theme: Theme, side: ComparisonSide, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._side = side
        letter = side.letter
        badge = TintedLabel(theme, letter, bold=True, scale=1.15, parent=self)
        self._models = ModelBox(self)
        self._models.setObjectName(f"comparison_model_{letter}")
        self._models.setMinimumContentsLength(8)
        self._models.setAccessibleName(self.tr("Model {letter}").format(letter=letter))
        self._models.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self._models.activated.connect(self._activate)
        self._devices = ElidedBox(self)
        self._devices.setObjectName(f"comparison_device_{letter}")
        self._devices.setAccessibleName(self.tr("Device of model {letter}").format(letter=letter))
        self._devices.setMinimumContentsLength(7)
        self._devices.activated.connect(lambda index: self.device_picked.emit(str(self._devices.itemData(index))))
        self._load = QPushButton(self)
        self._load.setObjectName(f"comparison_load_{letter}")
        self._load.clicked.connect(self.load_asked)
        words = (self.tr("Load"), self.tr("Cancel"), self.tr("Unload"))
        self._load.setMinimumWidth(max(self._load.fontMetrics().horizontalAdvance(word) for word in words) + 24)
        self._detail = ElidedLabel(theme, role="muted", parent=self)
        self._detail.setObjectName(f"comparison_detail_{letter}")
        self._trouble = Note(theme, role="bad", parent=self)
        self._trouble.setObjectName(f"comparison_trouble_{letter}")
        self._bar = QProgressBar(self)
        self._bar.setTextVisible(False)
        self._bar.setFixedHeight(4)
        self._bar.setAccessibleName(self.tr("Loading model {letter}").format(letter=letter))
        keeps = self._bar.sizePolicy()
        keeps.setRetainSizeWhenHidden(True)  # so that the layout is stable when loading begins
        self._bar.setSizePolicy(keeps)
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(badge)
        row.addWidget(self._models, 1)
        row.addWidget(self._load)
        second = QHBoxLayout()
        second.setSpacing(8)
        second.addWidget(self._devices)
        second.addWidget(self._detail, 1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addLayout(row)
        column.addLayout(second)
        for below in (self._bar, self._trouble):
            column.addWidget(below)
        side.changed.connect(self.update_state)
        side.session.progressed.connect(self.update_state)
        self.set_devices(Machine())
        self.update_state()

    def set_choices(self, choices: Sequence[ModelChoice]) -> None:
        """Set the models; the one of the side is selected."""
        self._models.offer(choices)
        if choices:
            self._models.insertSeparator(self._models.count())
        self._models.addItem(self.tr("Open folder\N{HORIZONTAL ELLIPSIS}"), OPEN)
        self._models.fit_list()
        self.update_state()

    def set_devices(self, machine: Machine) -> None:
        """Set the usable devices."""
        self._devices.clear()
        self._devices.addItem(self.tr("Automatic"), "auto")
        for device in machine.devices:
            if device.usable:
                self._devices.addItem(_short(device), device.stable_id or device.id)
                self._devices.setItemData(
                    self._devices.count() - 1, html.escape(device.name), Qt.ItemDataRole.ToolTipRole
                )
        self._devices.fit_list()
        self.update_state()

    def update_state(self) -> None:
        """Show the current state of the side."""
        side, state = self._side, self._side.session.state
        self._models.setCurrentIndex(self._models.findData(side.name))
        self._devices.setCurrentIndex(max(0, self._devices.findData(side.device)))
        words = {
            "idle": (self.tr("Load"), self.tr("Load the model into memory now; the first message does it too")),
            "loading": (self.tr("Cancel"), self.tr("Stop loading")),
        }
        text, explained = words.get(state, (self.tr("Unload"), self.tr("Free the memory of the model")))
        self._load.setText(text)
        self._load.setToolTip(explained)
        self._load.setAccessibleName(f"{text} {side.letter}")
        self._load.setEnabled(bool(side.name) and state != "answering")
        self._detail.set_text(*self._words())
        if side.error is not None:
            self._trouble.set_text(str(side.error), "bad")
        else:
            self._trouble.set_text(side.session.opened.device_note, "warning")
        self._bar.setVisible(state == "loading")
        if state == "loading":
            fraction = side.session.progress[1]
            self._bar.setRange(0, 0 if fraction < 0 else 1000)
            self._bar.setValue(round(1000 * max(0.0, fraction)))

    def _words(self) -> tuple[str, str]:
        """Return the line below the combo boxes, and its tooltip."""
        side, state = self._side, self._side.session.state
        if state == "loading":
            return side.session.progress[0], ""
        if not side.loaded:
            return (side.choice.detail, side.name) if side.choice is not None else (self.tr("Select a model"), "")
        opened = side.session.opened
        parts = [human(opened.weight_bytes)] if opened.weight_bytes else []
        most = max(opened.schemes.items(), key=lambda item: item[1], default=None)
        if most is not None:
            parts.append(f"{most[1]:,} layers {most[0]}")
        elif opened.unpacked:
            parts.append(self.tr("{0}, unpacked to 16 bits").format(opened.unpacked))
        else:
            parts.append(self.tr("not quantized"))
        if len(opened.schemes) > 1:
            parts.append(self.tr("and others"))
        parts.append(opened.device_name or opened.device)
        whole = "\n".join(filter(None, (side.name, opened.dtype)))
        return ", ".join(filter(None, parts)), whole

    def _activate(self, index: int) -> None:
        name = self._models.itemData(index)
        if name == OPEN:
            self.update_state()
            choose_folder(self, self.opened.emit)
        elif isinstance(name, str):
            self.picked.emit(name)


def _short(device: Device) -> str:
    return "CPU" if device.kind == "cpu" else device.id
