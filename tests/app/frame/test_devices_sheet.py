"""The sheet of devices and backends: status, reasons, and install commands."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from PySide6.QtGui import QAction, QGuiApplication
from PySide6.QtWidgets import QAbstractButton, QLabel, QWidget
from pytestqt.qtbot import QtBot

from app.frame.devices_sheet import DevicesSheet
from app.frame.main_window import MainWindow
from app.logs import LogFeed
from app.shared.context import Context
from core.errors import DeviceProblem
from core.inference.backends.backend import BackendRow
from core.inference.machine import Device, Machine
from core.service.messages import MeasureMachine
from tests.app import frame_pages
from tests.app.find import find
from tests.app.reading_aloud import unnamed, unreachable
from tests.app.recorded_calls import RecordedCalls
from tests.app.surroundings import surroundings_with

CPU = Device("cpu", "cpu", "Test CPU", 16_000_000_000, 0)
CARD = Device("cuda", "cuda", "Test card", 0, 0, usable=False, reason="its driver is missing.")
NATIVE = BackendRow("native", "Bitwright's kernels", True, "2, 3, 4, 8 bits")
ARK = BackendRow("ark", "auto-round-lib", False, "4 bits", "It is not installed.", "pip install auto-round-lib")


@pytest.fixture
def recorded() -> RecordedCalls:
    return RecordedCalls()


@pytest.fixture
def surroundings(context: Context, recorded: RecordedCalls) -> Context:
    context.draft.set_machine(Machine((CPU, CARD), {"cpu": 1.2e11}, "cpu", {"cpu": (NATIVE, ARK)}))
    return surroundings_with(context, calls=recorded)


@pytest.fixture
def sheet(qtbot: QtBot, surroundings: Context) -> DevicesSheet:
    ground = QWidget()
    qtbot.addWidget(ground)
    ground.resize(930, 560)
    ground.show()
    made = DevicesSheet(surroundings, ground)
    ground.sheet = made  # type: ignore[attr-defined] # lives as long as the ground
    made.present()
    return made


def said(sheet: QWidget) -> str:
    return "\n".join(label.text() for label in sheet.findChildren(QLabel) if label.isVisibleTo(sheet))


def button(sheet: QWidget, name: str) -> Any:
    found = [each for each in sheet.findChildren(QAbstractButton, name) if each.isVisibleTo(sheet)]
    assert len(found) == 1, f"{len(found)} buttons {name}"
    return found[0]


def test_every_device_is_there_with_its_reason(sheet: DevicesSheet) -> None:
    assert "CPU: Test CPU" in said(sheet)
    assert "Cannot be used: its driver is missing." in said(sheet)


def test_every_backend_says_what_it_takes_and_whether_it_works(sheet: DevicesSheet) -> None:
    for part in ("Bitwright's kernels", "2, 3, 4, 8 bits", "Available", "It is not installed."):
        assert part in said(sheet)


def test_the_command_that_brings_a_backend_can_be_copied(sheet: DevicesSheet) -> None:
    button(sheet, "install_ark").click()
    assert QGuiApplication.clipboard().text() == "pip install auto-round-lib"


def test_the_whole_table_can_be_copied(sheet: DevicesSheet) -> None:
    button(sheet, "devices_copy").click()
    assert "its driver is missing." in QGuiApplication.clipboard().text()


def test_looking_again_measures_and_shows_what_is_new(
    sheet: DevicesSheet, recorded: RecordedCalls, surroundings: Context
) -> None:
    button(sheet, "devices_again").click()
    assert not button(sheet, "devices_again").isEnabled()
    card = replace(CARD, id="cuda:0", usable=True, reason="")
    recorded.of(MeasureMachine)[0].on_success(Machine((CPU, card), {"cuda:0": 1e13}, "cuda:0"))
    assert "Cannot be used" not in said(sheet)
    assert surroundings.draft.machine.chosen == "cuda:0"


def test_a_look_that_fails_is_said(sheet: DevicesSheet, recorded: RecordedCalls) -> None:
    button(sheet, "devices_again").click()
    recorded.of(MeasureMachine)[0].on_failure(DeviceProblem("The driver hangs.", "Restart."))
    assert "The driver hangs. Restart." in said(sheet)
    assert button(sheet, "devices_again").isEnabled()


def test_before_the_machine_was_measured_it_says_so(qtbot: QtBot, context: Context) -> None:
    ground = QWidget()
    qtbot.addWidget(ground)
    sheet = DevicesSheet(context, ground)
    sheet.present()
    assert "Measuring this machine" in said(sheet)


def test_what_is_measured_meanwhile_is_shown(sheet: DevicesSheet, surroundings: Context) -> None:
    surroundings.draft.set_machine(Machine((CPU,), {}, "cpu"))
    assert "Test card" not in said(sheet)


def test_everything_has_a_name_and_can_be_reached(sheet: DevicesSheet) -> None:
    assert (unnamed(sheet), unreachable(sheet)) == ([], [])


def test_the_menu_and_the_key_lead_to_it(qtbot: QtBot, surroundings: Context, context: Context) -> None:
    window = MainWindow(
        context.theme, context.state, LogFeed(), pages=frame_pages.PAGES, make_context=lambda _window: context
    )
    qtbot.addWidget(window)
    with qtbot.waitSignal(window.stack.complete):
        window.show()
    action = find(window, QAction, "action.devices")
    action.trigger()
    assert find(window, QWidget, "devices_sheet").isVisible()
    action.trigger()
    assert not find(window, QWidget, "devices_sheet").isVisible()
