"""Bars and texts for the resources of a run."""

from __future__ import annotations

import pytest
from PySide6.QtWidgets import QWidget
from pytestqt.qtbot import QtBot

from app.pages.model.cost_bar import CostBar
from app.pages.model.cost_bars import CostBars
from app.shared.resource_needs import FreeBytes
from app.theme import Theme
from app.widgets.elided_label import ElidedLabel
from app.widgets.note import Note
from core.estimation.costs import Costs, Range
from tests.app.find import find

GB = 1e9
COSTS = Costs(Range(1 * GB, 2 * GB), Range(2 * GB, 4 * GB), Range(0, 0), Range(180, 300), 1.0)
ROOMY = FreeBytes(100 * GB, 100 * GB)


@pytest.fixture
def bars(qtbot: QtBot, theme: Theme) -> CostBars:
    made = CostBars(theme)
    qtbot.addWidget(made)
    made.resize(420, 300)
    made.show()
    return made


def text(bars: CostBars, name: str) -> str:
    return find(bars, ElidedLabel, name).text()


def named(bars: CostBars, key: str) -> QWidget:
    return find(bars, QWidget, key)


def test_amounts_and_a_plain_word(bars: CostBars) -> None:
    bars.show_costs(COSTS, FreeBytes(100 * GB, 3 * GB))
    assert text(bars, "disk_amounts") == "1 to 2 GB of 100 GB free"
    assert text(bars, "disk_verdict") == "fits"
    assert text(bars, "ram_verdict") == "tight"


def test_the_devices_memory_shows_only_where_a_run_uses_it(bars: CostBars) -> None:
    bars.show_costs(COSTS, ROOMY)
    assert not named(bars, "device").isVisible()
    bars.show_costs(Costs(COSTS.disk, COSTS.ram, Range(9 * GB, 9 * GB), None, 1.0), FreeBytes(1e12, 1e12, 8 * GB))
    assert named(bars, "device").isVisible()
    assert text(bars, "device_verdict") == "does not fit"


def test_time_is_a_range_and_open_until_the_machine_was_measured(bars: CostBars) -> None:
    bars.show_costs(COSTS, ROOMY)
    assert text(bars, "time") == "3 to 5 min"
    untimed = Costs(COSTS.disk, COSTS.ram, COSTS.device, None, 1.0)
    bars.show_costs(untimed, ROOMY, measuring=True)
    assert text(bars, "time") == "Measuring this machine"
    bars.show_costs(untimed, ROOMY, measuring=False)
    assert text(bars, "time") == "Unknown"


def test_what_does_not_fit_can_be_tried_all_the_same(bars: CostBars) -> None:
    note = find(bars, Note, "advice")
    bars.show_costs(COSTS, FreeBytes(100 * GB, 1 * GB))
    assert note.isVisible()
    assert "You can still try" in note.text()
    bars.show_costs(COSTS, ROOMY)
    assert not note.isVisible()


def test_a_screen_reader_hears_each_bar_as_a_sentence(bars: CostBars) -> None:
    bars.show_costs(COSTS, FreeBytes(100 * GB, 3 * GB))
    spoken = [bar.accessibleName() for bar in bars.findChildren(CostBar)]
    assert spoken[:2] == ["Disk: 1 to 2 GB of 100 GB free, fits", "Memory: 2 to 4 GB of 3 GB free, tight"]


def test_the_exact_bytes_are_in_the_tooltip(bars: CostBars) -> None:
    bars.show_costs(COSTS, ROOMY)
    tip = find(bars, ElidedLabel, "disk_amounts").toolTip()
    assert "1,000,000,000 to 2,000,000,000 bytes, 100,000,000,000 free" in tip


def test_without_costs_there_are_no_bars(bars: CostBars) -> None:
    bars.show_costs(None, ROOMY)
    assert not bars.isVisible()


@pytest.mark.parametrize(
    ("free", "shares"),
    [(8.0, (0.25, 0.5, 1.0)), (2.0, (0.5, 1.0, 0.5)), (None, (0.5, 1.0, 1.0))],
)
def test_the_track_is_the_larger_of_need_and_room(
    qtbot: QtBot, theme: Theme, free: float | None, shares: tuple[float, float, float]
) -> None:
    bar = CostBar(theme)
    qtbot.addWidget(bar)
    bar.show_need(2.0, 4.0, free, "good")
    assert bar.shares() == shares


def test_the_bar_is_painted_in_the_color_of_its_verdict(qtbot: QtBot, theme: Theme) -> None:
    bar = CostBar(theme)
    qtbot.addWidget(bar)
    bar.resize(100, 8)
    bar.show_need(50.0, 50.0, 100.0, "bad")
    image = bar.grab().toImage()
    assert image.pixelColor(25, 4) == theme.color("bad")
    assert image.pixelColor(75, 4) == theme.color("line")
