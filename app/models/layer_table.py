"""The layers as rows of a table: those that the filter lets through, in the order that was asked for.

A face on a `LayerSheet`; keeps nothing of its own but which rows there are. Knows no selection.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, Qt

from app.models.layer_sheet import LayerSheet
from core.wording import human

if TYPE_CHECKING:
    from app.theme import Theme

NAME, BLOCK, SHAPE, BITS, GROUP, SYMMETRIC, SIZE, WHY = range(8)
_SIDES: Final = {
    **dict.fromkeys((BLOCK, GROUP, SYMMETRIC), Qt.AlignmentFlag.AlignHCenter),
    **dict.fromkeys((SHAPE, BITS, SIZE), Qt.AlignmentFlag.AlignRight),
}
_ROLES: Final = frozenset(
    {
        Qt.ItemDataRole.DisplayRole,
        Qt.ItemDataRole.TextAlignmentRole,
        Qt.ItemDataRole.DecorationRole,
        Qt.ItemDataRole.ToolTipRole,
    }
)
_NUMBERS: Final = re.compile(r"(\d+)")

Index = QModelIndex | QPersistentModelIndex


class LayerTable(QAbstractTableModel):
    """One row a layer."""

    def __init__(self, theme: Theme, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._sheet: LayerSheet | None = None
        self._matches: frozenset[int] | None = None
        self._order: list[int] = []
        self._rows: list[int] = []
        self._row_of: dict[int, int] = {}
        self._titles = (
            self.tr("Layer"),
            self.tr("Block"),
            self.tr("Shape"),
            self.tr("Bits"),
            self.tr("Group"),
            self.tr("Symmetric"),
            self.tr("Size"),
            self.tr("Why"),
        )
        theme.changed.connect(self._values_changed)

    @property
    def rows(self) -> list[int]:
        """The layer of each row."""
        return self._rows

    def row_of(self, layer: int) -> int:
        """The row of a layer; -1 where the filter leaves it out."""
        return self._row_of.get(layer, -1)

    def rows_of(self, layers: Iterable[int]) -> list[int]:
        """The rows of several layers, in no order, without those that the filter leaves out."""
        found = map(self._row_of.get, layers)
        return [row for row in found if row is not None]

    def show_sheet(self, sheet: LayerSheet | None) -> None:
        """Show the layers of a sheet. With other figures of the same layers, every row stays where it is."""
        known = self._sheet
        self._sheet = sheet
        if sheet is not None and known is not None and known.tree is sheet.tree and len(known) == len(sheet):
            self._values_changed()
            return
        self._matches = None
        self._order = list(range(len(sheet))) if sheet is not None else []
        self._lay_out()

    def set_matches(self, matches: frozenset[int] | None) -> None:
        """Show only these layers; None shows all."""
        if matches != self._matches:
            self._matches = matches
            self._lay_out()

    def rowCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008 - Qt's name and default
        """The number of layers shown."""
        return 0 if parent.isValid() else len(self._rows)

    def columnCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008 - Qt's name and default
        """The number of things told of each."""
        return 0 if parent.isValid() else len(self._titles)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Titles of the columns."""
        if orientation != Qt.Orientation.Horizontal or not 0 <= section < len(self._titles):
            return None
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return self._alignment(section)
        return self._titles[section] if role == Qt.ItemDataRole.DisplayRole else None

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """What a cell of the table says."""
        if role not in _ROLES or self._sheet is None or not index.isValid() or index.row() >= len(self._rows):
            return None
        layer, column = self._rows[index.row()], index.column()
        if role == Qt.ItemDataRole.DisplayRole:
            return self._text(self._sheet, layer, column)
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return self._alignment(column)
        if role == Qt.ItemDataRole.DecorationRole and column == BITS:
            return self._theme.bits_color(self._sheet.bits[layer])
        if role == Qt.ItemDataRole.ToolTipRole:
            # Escaped: the names in a checkpoint are a stranger's.
            return f"<p style='white-space:pre'>{html.escape(self._sheet.describe(layer))}</p>"
        return None

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Sort by a column, layers that are equal in it in the order of the model; by none with -1."""
        if self._sheet is None:
            return
        layers = list(range(len(self._sheet)))
        if column >= 0:
            layers.sort(key=_key(self._sheet, column), reverse=order == Qt.SortOrder.DescendingOrder)
        self._order = layers
        self._lay_out()

    def _text(self, sheet: LayerSheet, layer: int, column: int) -> str:
        linear, case = sheet.linear(layer), sheet.case(layer)
        scheme = case.scheme
        if column == NAME:
            return linear.name
        if column == BLOCK:
            return str(linear.block) if linear.block >= 0 else ""
        if column == SHAPE:
            return sheet.shape(layer)
        if column == BITS:
            return str(scheme.bits)
        if column == SIZE:
            return f"{human(sheet.size(layer))}\N{EN SPACE}"  # keeps its distance from the text in the next column
        if column == WHY:
            return f"{case.why}; {case.fallback}" if case.fallback else case.why
        if not scheme.quantized:
            return "\N{EN DASH}"
        if column == GROUP:
            return self.tr("row") if scheme.group_size == -1 else str(scheme.group_size)
        return self.tr("yes") if scheme.sym else self.tr("no")

    @staticmethod
    def _alignment(column: int) -> Qt.AlignmentFlag:
        return _SIDES.get(column, Qt.AlignmentFlag.AlignLeft) | Qt.AlignmentFlag.AlignVCenter

    def _lay_out(self) -> None:
        # A reset, as to move 20,000 rows one by one takes longer than to look at the visible ones again.
        self.beginResetModel()
        matches = self._matches
        self._rows = self._order if matches is None else [layer for layer in self._order if layer in matches]
        self._row_of = dict(zip(self._rows, range(len(self._rows)), strict=True))
        self.endResetModel()

    def _values_changed(self) -> None:
        if self._rows:
            self.dataChanged.emit(self.index(0, 0), self.index(len(self._rows) - 1, len(self._titles) - 1))


def _key(sheet: LayerSheet, column: int) -> Callable[[int], Any]:
    """What layers are sorted by in a column."""
    linears, case = sheet.tree.linears, sheet.case
    if column == NAME:
        # `layers.2` before `layers.10`
        names = [_NUMBERS.split(linear.name) for linear in linears]
        return lambda layer: [int(part) if part.isdecimal() else part for part in names[layer]]
    keys: dict[int, Callable[[int], Any]] = {
        BLOCK: lambda layer: linears[layer].block,
        SHAPE: lambda layer: linears[layer].in_features * linears[layer].out_features,
        BITS: sheet.bits.__getitem__,
        GROUP: lambda layer: case(layer).scheme.group_size if case(layer).scheme.quantized else 0,
        SYMMETRIC: lambda layer: case(layer).scheme.sym,
        SIZE: sheet.size,
        WHY: lambda layer: case(layer).why,
    }
    return keys[column]
