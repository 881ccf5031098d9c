"""What computes the answers: the device, how the weights are held, and why the other devices cannot be used.

Shows what was measured of the machine (`app.draft.Machine`); measures nothing.
"""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QVBoxLayout, QWidget

from app.draft import Machine
from app.theme import Theme
from app.widgets.elided_box import ElidedBox
from app.widgets.note import Note
from app.widgets.tinted_label import TintedLabel

AUTO = "auto"


class ChatDevice(QWidget):
    """A picker of devices and two lines about how they are used.

    Signals:
        picked(str): the user picked the device of this id, or `auto`.
    """

    picked = Signal(str)

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._devices: tuple[dict[str, Any], ...] = ()
        label = TintedLabel(theme, self.tr("&Device"), bold=True, parent=self)
        self._box = ElidedBox(self)
        self._box.setObjectName("chat_device")
        self._box.addItem(self.tr("Automatic"), AUTO)
        self._box.activated.connect(lambda index: self.picked.emit(str(self._box.itemData(index))))
        label.setBuddy(self._box)
        self._backend = Note(theme, parent=self)
        self._backend.setObjectName("chat_backend")
        self._others = Note(theme, parent=self)
        self._others.setObjectName("chat_why_not")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        for widget in (label, self._box, self._backend, self._others):
            column.addWidget(widget)

    @property
    def current(self) -> str:
        """The picked id, or `auto`."""
        return str(self._box.currentData())

    def set_machine(self, machine: Machine) -> None:
        """Offer the devices of `machine` that work, and say of the others why they do not."""
        if machine.devices == self._devices and self._devices:
            return
        self._devices = machine.devices
        before = self.current
        self._box.clear()
        usable = [device for device in machine.devices if device.get("usable")]
        chosen = next((device for device in usable if device.get("id") == machine.chosen), None)
        self._box.addItem(
            self.tr("Automatic ({device})").format(device=_short(chosen)) if chosen else self.tr("Automatic"), AUTO
        )
        for device in usable:
            self._box.addItem(name_of(device), device["id"])
        self._box.fit_list()
        self._box.setCurrentIndex(max(0, self._box.findData(before)))
        reasons = [
            self.tr("{device} cannot be used: {reason}").format(
                device=device.get("name", ""), reason=device.get("reason", "")
            )
            for device in machine.devices
            if not device.get("usable")
        ]
        self._others.tell("\n".join(reasons))

    def set_backend(self, text: str) -> None:
        """How the weights are held and computed with."""
        self._backend.tell(text)


def _short(device: dict[str, Any]) -> str:
    return "CPU" if device.get("kind") == "cpu" else str(device.get("id", ""))


def name_of(device: dict[str, Any]) -> str:
    """`CPU (AMD EPYC)`, `cuda:0 (NVIDIA L4)`."""
    return f"{_short(device)} ({device.get('name', '')})"
