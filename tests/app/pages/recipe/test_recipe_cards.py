"""Cards: one is picked, arrows move between them, what they say is told to a screen reader too."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from pytestqt.qtbot import QtBot

from app.pages.recipe.recipe_cards import RecipeCards
from app.pages.recipe.recipe_words import OTHER
from app.theme import Theme
from app.widgets.tinted_label import TintedLabel
from core import recipes
from core.recipes import Recipe

BUNDLED = [recipes.load(name) for name in recipes.NAMES]


@pytest.fixture
def cards(qtbot: QtBot, theme: Theme) -> RecipeCards:
    widget = RecipeCards(theme)
    qtbot.addWidget(widget)
    widget.set_recipes(BUNDLED)
    widget.set_picked("quick")
    widget.resize(832, 300)
    widget.show()
    return widget


@pytest.fixture
def picked(cards: RecipeCards) -> list[str]:
    names: list[str] = []
    cards.picked.connect(names.append)
    return names


def test_a_press_on_a_card_picks_it(qtbot: QtBot, cards: RecipeCards, picked: list[str]) -> None:
    qtbot.mouseClick(cards.card("best"), Qt.MouseButton.LeftButton)
    assert picked == ["best"]
    assert cards.card("best").isChecked()
    assert not cards.card("quick").isChecked()


def test_a_press_on_the_text_of_a_card_picks_it(qtbot: QtBot, cards: RecipeCards, picked: list[str]) -> None:
    window = cards.window().windowHandle()
    place = cards.card("light").mapTo(cards, cards.card("light").rect().center())
    qtbot.mouseClick(window, Qt.MouseButton.LeftButton, pos=place)
    assert picked == ["light"]


def test_arrows_pick_the_neighbours(qtbot: QtBot, cards: RecipeCards, picked: list[str]) -> None:
    cards.activateWindow()
    cards.card("quick").setFocus()
    qtbot.keyClick(cards.card("quick"), Qt.Key.Key_Right)
    qtbot.keyClick(cards.card("light"), Qt.Key.Key_Down)
    qtbot.keyClick(cards.card("gptq"), Qt.Key.Key_Left)
    assert picked == ["light", "gptq", "best"]


def test_showing_the_picked_one_tells_nobody(cards: RecipeCards, picked: list[str]) -> None:
    cards.set_picked("best")
    assert picked == []


def test_narrow_cards_stand_below_each_other(qtbot: QtBot, cards: RecipeCards) -> None:
    cards.resize(300, 900)
    qtbot.waitUntil(lambda: cards.card("light").x() == cards.card("quick").x())
    assert cards.card("light").y() > cards.card("quick").y()


def test_a_new_recipe_leaves_the_other_cards_alone(cards: RecipeCards) -> None:
    before = cards.card("quick")
    cards.set_recipes([*BUNDLED, Recipe("poems", "For poems.")])
    assert cards.card("quick") is before
    assert cards.names() == [*recipes.NAMES[:5], "poems", *recipes.NAMES[5:]]


def test_what_is_for_comparison_stands_below_the_others(cards: RecipeCards) -> None:
    cards.set_recipes([*BUNDLED, Recipe("poems", "For poems.")])
    cards.resize(832, 900)
    rows = {name: cards.card(name).y() for name in cards.names()}
    assert rows["best"] == rows["gptq"] < rows["poems"] < rows["rtn"] == rows["opt-rtn"] < rows["autoround"]
    headings = [label.y() for label in cards.findChildren(TintedLabel, "section") if label.isVisible()]
    assert rows["best"] < headings[0] < rows["poems"] < headings[1] < rows["rtn"]


def test_a_section_without_cards_has_no_heading(cards: RecipeCards) -> None:
    shown = [label.text() for label in cards.findChildren(TintedLabel, "section") if label.isVisible()]
    assert shown == [OTHER]


def test_a_recipe_that_is_gone_takes_its_card_along(cards: RecipeCards) -> None:
    cards.set_recipes([*BUNDLED, Recipe("poems")])
    cards.set_recipes(BUNDLED)
    assert cards.names() == list(recipes.NAMES)


def test_a_screen_reader_hears_the_whole_card(cards: RecipeCards) -> None:
    card = cards.card("quick")
    card.set_texts("For a first look.", "3 min (estimate)", "some loss", modified=True)
    assert card.accessibleName() == "Quick"
    assert card.accessibleDescription() == "For a first look. 3 min (estimate). some loss. Modified."


def test_the_mark_comes_and_goes(cards: RecipeCards) -> None:
    card = cards.card("quick")
    card.set_texts("a", "b", "c", modified=True)
    assert card.modified
    card.set_texts("a", "b", "c", modified=False)
    assert not card.modified
