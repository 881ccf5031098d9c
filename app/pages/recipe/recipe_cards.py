"""The recipes as cards in up to three columns and in sections with headings, with arrow keys to move between them.

Emits the selection; the page applies it.
"""

from __future__ import annotations

from collections.abc import Iterable

from PySide6.QtCore import QSize, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QGridLayout, QLayout, QWidget

from app.pages.recipe.recipe_card import RecipeCard
from app.pages.recipe.recipe_words import OTHER, OWN, SAVED, section_of, title_of
from app.theme import Theme
from app.widgets.radio_focus import settle_focus
from app.widgets.tinted_label import TintedLabel
from core.recipes import Recipe

_SPACING = 8
_CARD_WIDTH = 220
_MOST_COLUMNS = 3


class RecipeCards(QWidget):
    """All cards.

    Signals:
        picked: the name of the selected recipe.
    """

    picked = Signal(str)

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._cards: dict[str, RecipeCard] = {}
        self._sections: dict[str, str] = {}
        self._headings = {
            section: TintedLabel(theme, self.tr(section), role="muted", parent=self) for section in (SAVED, OTHER)
        }
        for heading in self._headings.values():
            heading.setObjectName("section")
        self._columns = _MOST_COLUMNS
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setSpacing(_SPACING)
        self._grid.setSizeConstraint(QLayout.SizeConstraint.SetNoConstraint)

    def set_recipes(self, wanted: Iterable[Recipe]) -> None:
        """Create and remove cards for these recipes; existing cards are kept."""
        recipes = sorted(wanted, key=lambda recipe: (OWN, SAVED, OTHER).index(section_of(recipe)))
        shown = {recipe.name: recipe for recipe in recipes}
        if list(shown) == list(self._cards):
            return
        for name in [name for name in self._cards if name not in shown]:
            gone = self._cards.pop(name)
            self._grid.removeWidget(gone)
            gone.hide()
            gone.deleteLater()
        for name, recipe in shown.items():
            if name not in self._cards:
                self._cards[name] = self._make(recipe)
        self._cards = {name: self._cards[name] for name in shown}
        self._sections = {name: section_of(recipe) for name, recipe in shown.items()}
        self._place()

    def card(self, name: str) -> RecipeCard:
        """Return the card of a recipe."""
        return self._cards[name]

    def names(self) -> list[str]:
        """The recipes with a card, in the order of the cards."""
        return list(self._cards)

    def set_picked(self, name: str) -> None:
        """Select the card of this recipe."""
        card = self._cards.get(name)
        if card is not None and not card.isChecked():
            card.setChecked(True)
        settle_focus(self._cards.values())

    def minimumSizeHint(self) -> QSize:
        """Return the minimum size for one column."""
        widest = max((card.minimumSizeHint().width() for card in self._cards.values()), default=0)
        return QSize(widest, super().minimumSizeHint().height())

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Use as many columns as fit, at most three."""
        super().resizeEvent(event)
        columns = max(1, min(_MOST_COLUMNS, (self.width() + _SPACING) // (_CARD_WIDTH + _SPACING)))
        if columns != self._columns:
            self._columns = columns
            self._place()

    def _make(self, recipe: Recipe) -> RecipeCard:
        card = RecipeCard(self._theme, title_of(recipe), recipe.purpose, self)
        card.setObjectName(f"recipe-{recipe.name}")
        name = recipe.name
        card.clicked.connect(lambda: self.picked.emit(name))
        if self._cards:  # keeps the Tab order from top to bottom for cards created later
            QWidget.setTabOrder(list(self._cards.values())[-1], card)
        card.show()
        return card

    def _place(self) -> None:
        row = 0
        for section in (OWN, SAVED, OTHER):
            cards = [card for name, card in self._cards.items() if self._sections[name] == section]
            heading = self._headings.get(section)
            if heading is not None:
                self._grid.removeWidget(heading)
                heading.setVisible(bool(cards))
                if cards:
                    self._grid.addWidget(heading, row, 0, 1, self._columns)
                    row += 1
            for number, card in enumerate(cards):
                self._grid.removeWidget(card)
                self._grid.addWidget(card, row + number // self._columns, number % self._columns)
            row += -(-len(cards) // self._columns)
        for column in range(_MOST_COLUMNS):
            self._grid.setColumnStretch(column, 1 if column < self._columns else 0)
