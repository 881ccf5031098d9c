"""Sampling settings: neutral defaults, stored values, explanations, and the resulting `Sampling`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PySide6.QtWidgets import QAbstractSpinBox, QDoubleSpinBox, QPushButton, QSpinBox
from pytestqt.qtbot import QtBot

from app.pages.chat.sampling_panel import SamplingPanel
from app.state import State
from core.inference.generation.settings import Sampling
from tests.app.find import find


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path / "window.ini")


@pytest.fixture
def panel(state: State, qtbot: QtBot) -> SamplingPanel:
    panel = SamplingPanel(state)
    qtbot.addWidget(panel)
    return panel


def test_the_defaults_are_those_of_the_core(panel: SamplingPanel) -> None:
    assert replace(panel.values(), seed=0) == Sampling()


def test_a_change_is_remembered(panel: SamplingPanel, state: State, qtbot: QtBot) -> None:
    field = find(panel, QDoubleSpinBox, "sampling_temperature")
    with qtbot.waitSignal(panel.changed):
        field.setValue(0.7)
    again = SamplingPanel(state)
    qtbot.addWidget(again)
    assert again.values().temperature == pytest.approx(0.7)


def test_the_seed_is_new_each_time(panel: SamplingPanel) -> None:
    assert len({panel.values().seed for _ in range(4)}) > 1


def test_a_chosen_seed_stays(panel: SamplingPanel) -> None:
    field = find(panel, QSpinBox, "sampling_seed")
    field.setValue(7)
    assert panel.values().seed == 7


def test_reset_brings_the_neutral_values_back(panel: SamplingPanel) -> None:
    field = find(panel, QDoubleSpinBox, "sampling_top_p")
    reset = find(panel, QPushButton, "reset_sampling")
    assert isinstance(field, QDoubleSpinBox)
    assert isinstance(reset, QPushButton)
    assert not reset.isEnabled()
    field.setValue(0.5)
    reset.click()
    assert panel.values().top_p == 1.0
    assert not reset.isEnabled()


def test_every_setting_is_explained_in_a_line(panel: SamplingPanel) -> None:
    fields = panel.findChildren(QAbstractSpinBox)
    assert len(fields) == 7
    assert all(20 < len(field.toolTip()) < 120 and field.accessibleName() for field in fields)


def test_at_temperature_0_answers_are_fixed(panel: SamplingPanel) -> None:
    field = find(panel, QDoubleSpinBox, "sampling_temperature")
    assert panel.fixed
    field.setValue(1.0)
    assert not panel.fixed
