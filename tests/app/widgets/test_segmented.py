"""Segments work as radio buttons do, by mouse and by keyboard."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QVBoxLayout, QWidget
from pytestqt.qtbot import QtBot

from app.theme import Theme
from app.widgets.segmented import Option, Segmented, Toggles
from tests.app.reading_aloud import takes_tab

OPTIONS = [Option(bits, str(bits), f"{bits} bits") for bits in (2, 3, 4, 8)]


@pytest.fixture
def segmented(qtbot: QtBot, theme: Theme) -> Segmented:
    widget = Segmented(theme, OPTIONS)
    qtbot.addWidget(widget)
    widget.set_value(4)
    widget.show()
    return widget


@pytest.fixture
def told(segmented: Segmented) -> list[object]:
    values: list[object] = []
    segmented.chosen.connect(values.append)
    return values


def test_a_click_chooses(qtbot: QtBot, segmented: Segmented, told: list[object]) -> None:
    qtbot.mouseClick(segmented.button(2), Qt.MouseButton.LeftButton)
    assert (segmented.value, told) == (2, [2])
    assert not segmented.button(4).isChecked()


def test_a_click_on_the_chosen_one_tells_nobody(qtbot: QtBot, segmented: Segmented, told: list[object]) -> None:
    qtbot.mouseClick(segmented.button(4), Qt.MouseButton.LeftButton)
    assert told == []


def test_showing_a_value_tells_nobody(segmented: Segmented, told: list[object]) -> None:
    segmented.set_value(8)
    assert (segmented.value, told) == (8, [])


def test_a_value_that_is_no_option_leaves_all_open(segmented: Segmented) -> None:
    segmented.set_value(16)
    assert segmented.value is None
    assert not any(segmented.button(bits).isChecked() for bits in (2, 3, 4, 8))


def test_an_option_can_be_chosen_after_that(qtbot: QtBot, segmented: Segmented, told: list[object]) -> None:
    segmented.set_value(16)
    qtbot.mouseClick(segmented.button(4), Qt.MouseButton.LeftButton)
    assert told == [4]


def test_arrows_move_the_choice(qtbot: QtBot, segmented: Segmented, told: list[object]) -> None:
    segmented.activateWindow()
    segmented.button(4).setFocus()
    qtbot.keyClick(segmented.button(4), Qt.Key.Key_Right)
    qtbot.keyClick(segmented.button(8), Qt.Key.Key_Left)
    qtbot.keyClick(segmented.button(4), Qt.Key.Key_Left)
    assert told == [8, 4, 3]


def test_tab_stops_once(qtbot: QtBot, theme: Theme) -> None:
    holder = QWidget()
    qtbot.addWidget(holder)
    first, second = Segmented(theme, OPTIONS), Segmented(theme, OPTIONS)
    column = QVBoxLayout(holder)
    column.addWidget(first)
    column.addWidget(second)
    first.set_value(4)
    second.set_value(8)
    holder.show()
    holder.activateWindow()
    first.button(4).setFocus()
    qtbot.keyClick(first.button(4), Qt.Key.Key_Tab)
    assert holder.focusWidget() is second.button(8)


def test_every_segment_has_a_full_name(segmented: Segmented) -> None:
    assert [segmented.button(bits).accessibleName() for bits in (2, 8)] == ["2 bits", "8 bits"]


def test_it_does_not_move_when_something_is_chosen(segmented: Segmented) -> None:
    before = segmented.sizeHint()
    segmented.set_value(8)
    assert segmented.sizeHint() == before


# --- Toggles ------------------------------------------------------------------------------------------------


@pytest.fixture
def toggles(qtbot: QtBot, theme: Theme) -> Toggles:
    made = Toggles(theme, [Option(n, str(n)) for n in (2, 3, 4)])
    qtbot.addWidget(made)
    made.set_values([2, 4])
    return made


def test_each_is_on_or_off_by_itself(qtbot: QtBot, toggles: Toggles) -> None:
    with qtbot.waitSignal(toggles.changed):
        toggles.button(3).click()
    toggles.button(2).click()
    assert toggles.values == (3, 4)


def test_the_last_one_stays_on(qtbot: QtBot, toggles: Toggles) -> None:
    toggles.set_values([3])
    with qtbot.assertNotEmitted(toggles.changed):
        toggles.button(3).click()
    assert toggles.values == (3,)


def test_every_toggle_takes_the_tab_key(toggles: Toggles) -> None:
    assert all(takes_tab(toggles.button(n)) for n in (2, 3, 4))
