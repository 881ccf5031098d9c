"""The choice of the device for the chat, and the reasons why other devices cannot be used.

The choice is kept by the stable id of the device, which does not depend on its index.
"""

from __future__ import annotations

from typing import Final

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QVBoxLayout, QWidget

from app.state import State
from app.theme import Theme
from app.widgets.elided_box import ElidedBox
from app.widgets.note import Note
from app.widgets.tinted_label import TintedLabel
from core.inference.machine import Device, Machine

AUTO: Final = "auto"
_KEY: Final = "chat/device"
_NAME: Final = "chat/device_name"


class ChatDevice(QWidget):
    """A combo box of devices with two lines of text.

    Signals:
        picked(str): the user selected the device of this id, or `auto`.
    """

    picked = Signal(str)

    def __init__(self, theme: Theme, state: State, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        self._machine = Machine()
        self._wanted = state.value(_KEY, AUTO) or AUTO
        label = TintedLabel(theme, self.tr("&Device"), bold=True, parent=self)
        self._box = ElidedBox(self)
        self._box.setObjectName("chat_device")
        self._box.activated.connect(self._activate)
        label.setBuddy(self._box)
        self._note = Note(theme, parent=self)
        self._note.setObjectName("chat_device_note")
        self._others = Note(theme, parent=self)
        self._others.setObjectName("chat_why_not")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        for widget in (label, self._box, self._note, self._others):
            column.addWidget(widget)
        self._fill()

    @property
    def current(self) -> str:
        """The value for `LoadModel`: the current id, the stable id of a missing device, or `auto`."""
        device = self._device(self._wanted)
        return device.id if device is not None else self._wanted

    @property
    def meant(self) -> str:
        """The id of the device that will be used, as far as known."""
        return (self._machine.chosen or "cpu") if self._wanted == AUTO else self.current

    def set_machine(self, machine: Machine) -> None:
        """Offer the usable devices of `machine`, and show the reasons against the others."""
        if machine.devices == self._machine.devices and machine.chosen == self._machine.chosen:
            return
        self._machine = machine
        self._fill()
        reasons = [
            self.tr("{device} cannot be used: {reason}").format(device=device.name, reason=device.reason)
            for device in machine.devices
            if not device.usable
        ]
        self._others.set_text("\n".join(reasons))

    def set_note(self, text: str) -> None:
        """Set the reason why another device is used than the selected one; "" for none."""
        self._note.set_text(text, "warning")

    def use_cpu(self) -> None:
        """Select the CPU after another device failed."""
        self._choose("cpu", "CPU")
        self._fill()

    def _fill(self) -> None:
        usable = [device for device in self._machine.devices if device.usable]
        chosen = next((device for device in usable if device.id == self._machine.chosen), None)
        self._box.clear()
        self._box.addItem(
            self.tr("Automatic ({device})").format(device=_short(chosen)) if chosen else self.tr("Automatic"), AUTO
        )
        for device in usable:
            self._box.addItem(name_of(device), lasting_id(device))
        if self._box.findData(self._wanted) < 0:
            name = self._state.value(_NAME, "") or self._wanted
            gone = self.tr("{device} (not available)") if usable else "{device}"
            self._box.addItem(gone.format(device=name), self._wanted)
        self._box.fit_list()
        self._box.setCurrentIndex(self._box.findData(self._wanted))

    def _activate(self, index: int) -> None:
        lasting = str(self._box.itemData(index))
        if lasting != self._wanted:
            device = self._device(lasting)
            self._choose(lasting, name_of(device) if device is not None else "")
            self.picked.emit(self.current)

    def _choose(self, lasting: str, name: str) -> None:
        self._wanted = lasting
        self._state.set_value(_KEY, lasting)
        self._state.set_value(_NAME, name)
        self.set_note("")

    def _device(self, lasting: str) -> Device | None:
        usable = (device for device in self._machine.devices if device.usable)
        return next((device for device in usable if lasting_id(device) == lasting), None)


def lasting_id(device: Device) -> str:
    """Return the stable id of a device, which is the same after a restart."""
    return device.stable_id or device.id


def _short(device: Device) -> str:
    return "CPU" if device.kind == "cpu" else device.id


def name_of(device: Device) -> str:
    """Return the display name of a device, such as `CPU (AMD EPYC)` or `cuda:0 (NVIDIA L4)`."""
    return f"{_short(device)} ({device.name})"
