"""The rail: order of the pages, current page, and dots."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QToolButton
from pytestqt.qtbot import QtBot

from app.frame.rail import Rail
from app.theme import Theme
from tests.app.find import find

PAGES = (("model", "Model"), ("recipe", "Recipe"), ("run", "Run"))


@pytest.fixture
def rail(qtbot: QtBot, theme: Theme) -> Rail:
    made = Rail(theme, PAGES)
    qtbot.addWidget(made)
    made.resize(made.width(), 500)
    made.show()
    return made


def button(rail: Rail, page: str) -> QToolButton:
    return find(rail, QToolButton, f"rail_{page}")


def test_pages_stand_in_their_order_with_the_settings_last(rail: Rail) -> None:
    names = ("model", "recipe", "run", "settings")
    tops = [button(rail, name).y() for name in names]
    assert tops == sorted(tops)
    assert [button(rail, name).text() for name in names] == ["Model", "Recipe", "Run", "Settings"]


def test_a_press_chooses_the_page(qtbot: QtBot, rail: Rail) -> None:
    with qtbot.waitSignal(rail.chosen) as chosen:
        button(rail, "recipe").click()
    assert chosen.args == ["recipe"]


def test_one_page_is_on(rail: Rail) -> None:
    rail.show_page("recipe")
    rail.show_page("run")
    assert [button(rail, page).isChecked() for page, _ in PAGES] == [False, False, True]


def test_a_dot_can_be_seen_and_heard(rail: Rail) -> None:
    before = rail.grab().toImage()
    rail.set_dot("run", True)
    assert rail.grab().toImage() != before
    assert button(rail, "run").accessibleDescription() == "Has updates"
    rail.set_dot("run", False)
    assert rail.grab().toImage() == before


def test_the_mark_of_the_page_that_is_on_has_the_accent_color(rail: Rail, theme: Theme) -> None:
    rail.show_page("run")
    found = [button(rail, page).grab().toImage().pixelColor(1, 30) for page, _ in PAGES]
    assert [color == theme.color("accent") for color in found] == [False, False, True]


def test_the_name_stands_below_the_icon_and_tab_reaches_it(rail: Rail) -> None:
    shown = button(rail, "model")
    assert shown.toolButtonStyle() is Qt.ToolButtonStyle.ToolButtonTextUnderIcon
    assert shown.focusPolicy() is Qt.FocusPolicy.StrongFocus


def test_every_button_shows_its_whole_name(rail: Rail) -> None:
    for name in ("model", "recipe", "run", "settings"):
        shown = button(rail, name)
        assert shown.fontMetrics().horizontalAdvance(shown.text()) <= shown.width()
