"""The Layers page as it looks with a model: map and table, what stands above and below them, and the panel beside.

Arranges widgets, for narrow and for wide windows, and asks for files; knows no draft and no bits map.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from PySide6.QtCore import QDir, QSize, Qt, Signal
from PySide6.QtGui import QPaintEvent, QResizeEvent
from PySide6.QtWidgets import QFileDialog, QHBoxLayout, QLabel, QLayout, QSplitter, QVBoxLayout, QWidget

from app.pages.layers.list.layer_filter import LayerFilter
from app.pages.layers.list.layer_list import LayerList
from app.pages.layers.list.layer_table import LayerTable
from app.pages.layers.map.bits_map import BitsMapView
from app.pages.layers.map.map_legend import MapLegend
from app.pages.layers.selection import Selection
from app.pages.layers.side_panel import SidePanel
from app.widgets.segmented import Option, Segmented

if TYPE_CHECKING:
    from app.state import State
    from app.theme import Theme

_WIDE: Final = 1250
"""From this width on map and table stand side by side."""
_ROOMY: Final = 1500
"""From this width of the window on the panel is wider, and the curve of damage stands below the map."""
_PLOT: Final = 230
_COLUMN, _LEAST = 64, 300
"""Width of a column of the map where there is room, and the least of map and table."""
_VIEW, _FOLDER = "layers/view", "layers/folder"


class LayersBody(QWidget):
    """Everything on the page but the notice that stands in for it without a model.

    Signals:
        open_chosen, save_chosen: the path of a bits map that the user picked.
        checkpoint_chosen: the folder of a quantized checkpoint.
    """

    open_chosen = Signal(str)
    save_chosen = Signal(str)
    checkpoint_chosen = Signal(str)

    def __init__(
        self, theme: Theme, state: State, selection: Selection, model: LayerTable, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._state = state
        # Made in the order of reading, which is that of the Tab key.
        self.colour_by = self._colour_choice(theme)
        self.legend = MapLegend(theme, self)
        self.filter = LayerFilter(theme, self)
        self.view = self._view_choice(theme)
        self.map = BitsMapView(theme, selection, self)
        self.map.setObjectName("bits_map")
        self.table = LayerList(model, selection, self)
        self.side = SidePanel(theme, state, self)
        self.inspector, self.next = self.side.inspector, self.side.next
        self._curve_known = self._wide = False
        self._columns = 0
        row = QHBoxLayout(self)
        row.setContentsMargins(16, 16, 16, 16)
        row.setSpacing(16)
        row.addLayout(self._left(), 1)
        row.addWidget(self.side)
        self.view.chosen.connect(self._choose_view)
        self.side.open.triggered.connect(self.ask_open)
        self.side.take.triggered.connect(self.ask_checkpoint)
        self._show_views()

    def focus_layers(self) -> None:
        """Give the keyboard to the map, or to the table where only that is shown."""
        (self.table if self.map.isHidden() else self.map).setFocus(Qt.FocusReason.OtherFocusReason)

    def set_known(self, *, losses: bool, damage: bool) -> None:
        """Whether the map can be coloured by loss and by sensitivity."""
        wholes = (
            ("loss", losses, self.tr("Colour by the loss that each block ended with")),
            ("sensitivity", damage, self.tr("Colour by the damage that the fewest bits would do")),
        )
        missing = {
            "loss": self.tr("Known once this model was quantized in this window"),
            "sensitivity": self.tr("Known once it was measured: Budget, Measure sensitivity"),
        }
        for name, known, about in wholes:
            button = self.colour_by.button(name)
            button.setEnabled(known)
            button.setToolTip(about if known else missing[name])

    def set_curve_known(self, known: bool) -> None:
        """Whether there is a curve of damage to show."""
        self._curve_known = known
        self._show_views()

    def make_room(self, columns: int) -> None:
        """Give the map what so many columns need, if that is not too much beside the table."""
        self._columns = columns
        room = max(sum(self._views.sizes()), self._views.width())
        needed = min(max(_COLUMN * (columns + 1), _LEAST), room * 3 // 5)
        self._views.setSizes([needed, room - needed])

    def ask_open(self) -> None:
        """Let the user pick a bits map."""
        dialog = self._dialog(self.tr("Open a bits map"))
        dialog.setFileMode(QFileDialog.FileMode.ExistingFile)
        dialog.fileSelected.connect(self.open_chosen)
        dialog.open()

    def ask_checkpoint(self) -> None:
        """Let the user pick a quantized checkpoint."""
        dialog = self._dialog(self.tr("Take the bits of a quantized checkpoint"))
        dialog.setFileMode(QFileDialog.FileMode.Directory)
        dialog.setOption(QFileDialog.Option.ShowDirsOnly, True)
        dialog.fileSelected.connect(self.checkpoint_chosen)
        dialog.open()

    def ask_save(self, name: str) -> None:
        """Let the user say where the bits map goes; `name` is what the file may be called."""
        dialog = self._dialog(self.tr("Save the bits map"))
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setDefaultSuffix("json")
        dialog.selectFile(f"{name}-bits.json")
        dialog.fileSelected.connect(self.save_chosen)
        dialog.open()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Show map and table side by side where there is room."""
        super().resizeEvent(event)
        self._show_views()

    def _colour_choice(self, theme: Theme) -> Segmented:
        choice = Segmented(
            theme,
            (
                Option("bits", self.tr("Bits"), self.tr("Colour by bits")),
                Option("sensitivity", self.tr("Sensitivity"), self.tr("Colour by sensitivity")),
                Option("size", self.tr("Size"), self.tr("Colour by size in the output")),
                Option("loss", self.tr("Loss"), self.tr("Colour by the loss that each block ended with")),
            ),
            self,
        )
        choice.setObjectName("colour_by")
        choice.set_value("bits")
        return choice

    def _view_choice(self, theme: Theme) -> Segmented:
        choice = Segmented(
            theme,
            (
                Option("map", self.tr("Map"), self.tr("Show the map")),
                Option("table", self.tr("Table"), self.tr("Show the table")),
            ),
            self,
        )
        choice.setObjectName("view")
        choice.set_value("table" if self._state.value(_VIEW, "map") == "table" else "map")
        return choice

    def _left(self) -> QLayout:
        colours = _RoomyLabel(self.tr("&Colour by"), self)
        colours.setBuddy(self.colour_by)
        upper = QHBoxLayout()
        upper.setSpacing(8)
        upper.addWidget(colours)
        upper.addWidget(self.colour_by)
        upper.addWidget(self.legend)
        upper.addStretch(1)
        middle = QHBoxLayout()
        middle.setSpacing(16)
        middle.addWidget(self.filter, 1)
        middle.addWidget(self.view)
        self._views = QSplitter(Qt.Orientation.Horizontal, self)
        self._views.setChildrenCollapsible(False)
        for widget in (self.map, self.table):
            widget.setMinimumWidth(_LEAST)
            self._views.addWidget(widget)
        self._views.setStretchFactor(1, 1)
        column = QVBoxLayout()
        column.setSpacing(8)
        column.addLayout(upper)
        column.addLayout(middle)
        column.addWidget(self._views, 1)
        self._below = QVBoxLayout()
        column.addLayout(self._below)
        return column

    def _choose_view(self, view: str) -> None:
        self._state.set_value(_VIEW, view)
        self._show_views()

    def _show_views(self) -> None:
        wide = self.width() >= _WIDE
        widened, self._wide = wide and not self._wide, wide
        table = self.view.value == "table"
        self.view.setVisible(not wide)
        self.map.setVisible(wide or not table)
        self.table.setVisible(wide or table)
        if widened and self._columns:
            self.make_room(self._columns)
        self._place_plot(roomy=self.window().width() >= _ROOMY)

    def _place_plot(self, *, roomy: bool) -> None:
        """Have the curve of damage below the map where there is room, else in the budget."""
        budget = self.side.budget
        self.side.set_roomy(roomy)
        place = self._below if roomy else budget.plot_place
        if place.indexOf(budget.plot) < 0:
            place.addWidget(budget.plot)
            budget.plot.setFixedHeight(_PLOT)
            # In the order of reading: behind what is shown of the map, or behind the measurement.
            self.setTabOrder(self.table if roomy else budget.start, budget.plot)
        budget.plot.setVisible(self._curve_known)

    def _dialog(self, title: str) -> QFileDialog:
        dialog = QFileDialog(self, title, self._state.value(_FOLDER, QDir.homePath()))
        dialog.setNameFilter(self.tr("Bits maps (*.json)"))
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.fileSelected.connect(lambda path: self._state.set_value(_FOLDER, str(Path(path).parent)))
        return dialog


class _RoomyLabel(QLabel):
    """A label that is there only where all of it has room: the names of the buttons beside it say the same."""

    def minimumSizeHint(self) -> QSize:
        """No width at all."""
        return QSize(0, super().minimumSizeHint().height())

    def paintEvent(self, event: QPaintEvent) -> None:
        """All of it or nothing."""
        if self.width() >= self.sizeHint().width():
            super().paintEvent(event)
