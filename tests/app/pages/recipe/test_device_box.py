"""Devices: the usable can be chosen, the others say why not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QStandardItemModel, QWheelEvent
from PySide6.QtWidgets import QApplication, QComboBox, QLabel
from pytestqt.qtbot import QtBot

from app.pages.recipe.device_box import DeviceBox
from app.theme import Theme
from core.inference.machine import Device
from tests.app.find import find

CPU = Device("cpu", "cpu", "Some CPU", 0, 8_000_000_000)
GPU = Device("cuda:0", "cuda", "A card", 0, 0)
DEAD = Device("xpu", "cuda", "Intel GPU", 0, 0, usable=False, reason="this build of torch has no XPU support.")


@pytest.fixture
def device(qtbot: QtBot, theme: Theme) -> DeviceBox:
    widget = DeviceBox(theme)
    qtbot.addWidget(widget)
    widget.show_devices((CPU, GPU, DEAD), "cpu", "auto")
    widget.show()
    return widget


def box(device: DeviceBox) -> QComboBox:
    return find(device, QComboBox, "device")


def texts(device: DeviceBox) -> list[str]:
    return [box(device).itemText(index) for index in range(box(device).count())]


def test_several_gpus_of_a_job_are_shown_as_they_are(device: DeviceBox) -> None:
    device.show_devices((CPU, GPU, replace(GPU, id="cuda:1")), "cpu", "cuda:0,cuda:1")
    assert box(device).currentText() == "cuda:0,cuda:1"
    device.show_devices((CPU, GPU), "cpu", "cuda:0,cuda:1")
    assert box(device).currentText() == "cuda:0,cuda:1, not found on this machine"


def test_all_devices_are_listed(device: DeviceBox) -> None:
    assert texts(device) == [
        "Automatic: Some CPU",
        "cpu: Some CPU, 8 GB free",
        "cuda:0: A card",
        "Intel GPU (cannot be used)",
    ]
    assert box(device).currentIndex() == 0


def test_one_that_does_not_work_is_disabled_and_says_why(device: DeviceBox) -> None:
    model = box(device).model()
    assert isinstance(model, QStandardItemModel)
    assert [model.item(index).isEnabled() for index in range(4)] == [True, True, True, False]
    assert box(device).itemData(3, Qt.ItemDataRole.ToolTipRole) == DEAD.reason
    note = find(device, QLabel, "device-note")
    assert note.text() == "Intel GPU cannot be used: this build of torch has no XPU support."


def test_the_id_of_the_chosen_one_is_told(qtbot: QtBot, device: DeviceBox) -> None:
    chosen: list[Any] = []
    device.chosen.connect(chosen.append)
    qtbot.keyClick(box(device), Qt.Key.Key_Down)
    qtbot.keyClick(box(device), Qt.Key.Key_Down)
    assert chosen == ["cpu", "cuda:0"]


def test_a_device_that_is_gone_is_named(device: DeviceBox) -> None:
    device.show_devices((CPU,), "cpu", "cuda:3")
    assert box(device).currentText() == "cuda:3, not found on this machine"


def test_before_the_machine_was_asked_there_is_automatic(device: DeviceBox) -> None:
    device.show_devices((), "", "auto")
    assert texts(device) == ["Automatic"]


def test_the_wheel_passes_over_it(device: DeviceBox) -> None:
    box(device).clearFocus()
    before = box(device).currentIndex()
    event = QWheelEvent(
        QPointF(5, 5), QPointF(5, 5), QPoint(0, -120), QPoint(0, -120), Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase, False,
    )  # fmt: skip
    QApplication.sendEvent(box(device), event)
    assert box(device).currentIndex() == before
