"""The device of a run: automatic, or one of the devices of this machine; unusable devices show the reason.

Shows the devices that it is given.
"""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QStandardItemModel
from PySide6.QtWidgets import QComboBox, QVBoxLayout, QWidget

from app.theme import Theme
from app.widgets.note import Note
from app.widgets.wheel_guard import WheelGuard
from core.inference.machine import Device
from core.wording import human


class DeviceBox(QWidget):
    """The list of devices.

    Signals:
        chosen: the id of the selected device, or `auto`.
    """

    chosen = Signal(str)

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._shown: object = None
        self._box = QComboBox(self)
        self._box.setObjectName("device")
        self._box.setAccessibleName(self.tr("Device"))
        self._box.view().setAccessibleName(self.tr("Devices"))
        self._box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self._box.setMinimumContentsLength(24)
        self._box.activated.connect(lambda index: self.chosen.emit(self._box.itemData(index)))
        WheelGuard(self._box)
        self._note = Note(theme, parent=self)
        self._note.setObjectName("device-note")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addWidget(self._box)
        column.addWidget(self._note)
        self.setFocusProxy(self._box)

    def show_devices(self, devices: Sequence[Device], automatic: str, chosen: str) -> None:
        """Show the devices, the id of the device of `auto` ("" while unknown), and the selected id."""
        now = (tuple(devices), automatic, chosen)
        if now == self._shown:
            return
        self._shown = now
        names = {device.id: device.name for device in devices}
        self._box.clear()
        found = names.get(automatic, automatic)
        self._box.addItem(self.tr("Automatic: {name}").format(name=found) if found else self.tr("Automatic"), "auto")
        for device in devices:
            self._add(device)
        if self._box.findData(chosen) < 0 and set(chosen.split(",")) <= set(names):
            self._box.addItem(chosen, chosen)  # several GPUs, of a job from the command line
        if self._box.findData(chosen) < 0:
            self._box.addItem(self.tr("{id}, not found on this machine").format(id=chosen), chosen)
        self._box.setCurrentIndex(self._box.findData(chosen))
        unusable = [device for device in devices if not device.usable]
        said = self.tr("{name} cannot be used: {reason}")
        self._note.set_text("\n".join(said.format(name=device.name, reason=device.reason) for device in unusable))

    def _add(self, device: Device) -> None:
        if device.usable:
            room = f", {human(device.free_memory)} free" if device.free_memory else ""
            self._box.addItem(f"{device.id}: {device.name}{room}", device.id)
            return
        self._box.addItem(self.tr("{name} (cannot be used)").format(name=device.name), device.id)
        index = self._box.count() - 1
        self._box.setItemData(index, device.reason, Qt.ItemDataRole.ToolTipRole)
        model = self._box.model()
        if isinstance(model, QStandardItemModel):
            model.item(index).setEnabled(False)
