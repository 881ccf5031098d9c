"""The scrolling form of the Recipe page: goal, recipes, bits, text, device, folder and parameters.

Creates and arranges its parts; `RecipePage` fills them and handles their signals.
"""

from __future__ import annotations

from collections.abc import Iterable

from PySide6.QtCore import QSize, Qt, QTimer
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QBoxLayout, QFrame, QHBoxLayout, QLayout, QScrollArea, QVBoxLayout, QWidget

from app.pages.recipe.calibration_box import CalibrationBox
from app.pages.recipe.device_box import DeviceBox
from app.pages.recipe.goal_bar import GoalBar
from app.pages.recipe.more_parameters import MoreParameters
from app.pages.recipe.pictures_box import PicturesBox
from app.pages.recipe.preset_bar import PresetBar
from app.pages.recipe.recipe_cards import RecipeCards
from app.pages.recipe.scheme_box import SchemeBox
from app.shared.context import Context
from app.widgets.output_field import OutputField
from app.widgets.tinted_label import TintedLabel
from core.recipes import Recipe

_EDGE = 24
_SECTION = 24
_TWO_COLUMNS = 1240
_WIDEST = 1560


class RecipeForm(QScrollArea):
    """The form, with its parts as attributes."""

    def __init__(self, context: Context, room: float, recipes: Iterable[Recipe], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        theme = context.theme
        self._theme = theme
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setWidgetResizable(True)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # its parts have the focus and pass on the keys that scroll
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        content = self._content = QWidget(self)
        column = QWidget(content)
        column.setMaximumWidth(_WIDEST)
        first, second = QWidget(column), QWidget(column)
        # created in reading order, which is the order of the Tab key
        self.goals = GoalBar(theme, room, first)
        self.cards = RecipeCards(theme, first)
        self.cards.set_recipes(recipes)
        self.presets = PresetBar(theme, first)
        self.scheme = SchemeBox(theme, second)
        self.calibration = CalibrationBox(context, second)
        self.pictures = PicturesBox(theme, second)
        self.device = DeviceBox(theme, second)
        self.output = OutputField(theme, second)
        self.more = MoreParameters(theme, column)
        self._fill(
            first,
            (self.tr("Goal"), self.goals),
            (self.tr("Recipe"), self.cards, self.presets),
        )
        self._fill(
            second,
            (self.tr("Bits and formats"), self.scheme),
            (self.tr("Calibration text"), self.calibration, self.pictures),
            (self.tr("Device"), self.device),
            (self.tr("Output folder"), self.output),
        )
        self._halves = QBoxLayout(QBoxLayout.Direction.TopToBottom)
        self._halves.setSpacing(_SECTION)
        self._halves.addWidget(first, 1)
        self._halves.addWidget(second, 1)
        down = QVBoxLayout(column)
        down.setContentsMargins(_EDGE, 16, _EDGE, 16)
        down.setSpacing(_SECTION)
        down.addLayout(self._halves)
        down.addWidget(self.more)
        down.addStretch(1)
        across = QHBoxLayout(content)
        across.setContentsMargins(0, 0, 0, 0)
        across.addStretch(1)
        across.addWidget(column, 1000)
        across.addStretch(1)
        self.setWidget(content)
        self.more.opened.connect(self._reveal)

    def sizeHint(self) -> QSize:
        """Return a small size, as the form scrolls and its container must not."""
        return QSize(_EDGE * 30, _EDGE * 10)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Use two columns if there is room."""
        super().resizeEvent(event)
        wide = self.width() >= _TWO_COLUMNS
        way = QBoxLayout.Direction.LeftToRight if wide else QBoxLayout.Direction.TopToBottom
        if way != self._halves.direction():
            self._halves.setDirection(way)
            self._halves.setSpacing(2 * _SECTION if wide else _SECTION)

    def below(self, inner: QLayout) -> QHBoxLayout:
        """Return a box with `inner`, as wide as the content of the form."""
        holder = QWidget(self.parentWidget())
        holder.setMaximumWidth(_WIDEST)
        holder.setLayout(inner)
        inner.setContentsMargins(_EDGE, 8, _EDGE, 8)
        across = QHBoxLayout()
        across.addStretch(1)
        across.addWidget(holder, 1000)
        across.addStretch(1)
        return across

    def _fill(self, holder: QWidget, *sections: tuple[str | QWidget, ...]) -> None:
        """Return a column of sections, each a heading and its widgets."""
        column = QVBoxLayout(holder)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(8)
        for number, section in enumerate(sections):
            if number:
                column.addSpacing(_SECTION - 8)
            for part in section:
                if isinstance(part, str):
                    label = TintedLabel(self._theme, part, bold=True, parent=holder)
                    buddy = section[1]
                    if isinstance(buddy, QWidget):
                        label.setBuddy(buddy)
                    column.addWidget(label)
                else:
                    column.addWidget(part)
        column.addStretch(1)

    def _reveal(self, opened: bool) -> None:
        """Scroll to the parameters after they were shown and laid out."""
        if opened:
            QTimer.singleShot(0, self.more, self._to_parameters)

    def _to_parameters(self) -> None:
        bar = self.verticalScrollBar()
        bar.setValue(min(bar.maximum(), self.more.mapTo(self._content, self.more.rect().topLeft()).y() - 16))
