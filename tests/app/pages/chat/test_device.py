"""The device of a chat: stored by its stable id, and reported if missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtWidgets import QComboBox
from pytestqt.qtbot import QtBot

from app.pages.chat.device import ChatDevice
from app.state import State
from app.theme import Theme
from core.inference.machine import Device, Machine
from tests.app.find import find

CPU = Device("cpu", "cpu", "Test CPU", 0, 0, stable_id="cpu")


def card(number: int, uuid: str) -> Device:
    return Device(f"cuda:{number}", "cuda", "Test card", 0, 0, stable_id=uuid)  # fmt: skip


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path / "window.ini")


def shown(theme: Theme, state: State, qtbot: QtBot, *devices: Device) -> ChatDevice:
    box = ChatDevice(theme, state)
    qtbot.addWidget(box)
    box.set_machine(Machine(devices, {}, devices[-1].id))
    return box


def pick(box: ChatDevice, lasting: str) -> None:
    picker = find(box, QComboBox, "chat_device")
    picker.setCurrentIndex(picker.findData(lasting))
    picker.activated.emit(picker.currentIndex())


def test_automatic_says_what_it_means(theme: Theme, state: State, qtbot: QtBot) -> None:
    box = shown(theme, state, qtbot, CPU, card(0, "GPU-1"))
    assert find(box, QComboBox, "chat_device").currentText() == "Automatic (cuda:0)"
    assert (box.current, box.meant) == ("auto", "cuda:0")


def test_a_card_that_got_another_number_is_still_the_one(theme: Theme, state: State, qtbot: QtBot) -> None:
    pick(shown(theme, state, qtbot, CPU, card(0, "GPU-1"), card(1, "GPU-2")), "GPU-2")
    later = shown(theme, state, qtbot, CPU, card(0, "GPU-2"), card(1, "GPU-1"))
    assert later.current == "cuda:0"


def test_a_card_that_is_gone_is_asked_for_by_its_lasting_name(theme: Theme, state: State, qtbot: QtBot) -> None:
    pick(shown(theme, state, qtbot, CPU, card(0, "GPU-1")), "GPU-1")
    later = shown(theme, state, qtbot, CPU)
    assert later.current == "GPU-1"
    assert find(later, QComboBox, "chat_device").currentText() == "cuda:0 (Test card) (not available)"


def test_in_place_of_a_device_that_failed_the_cpu_can_be_used(theme: Theme, state: State, qtbot: QtBot) -> None:
    box = shown(theme, state, qtbot, CPU, card(0, "GPU-1"))
    pick(box, "GPU-1")
    box.use_cpu()
    assert box.current == "cpu"
