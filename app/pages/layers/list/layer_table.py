"""The Qt item model of the layer tree: blocks, their modules, and the experts of expert modules.

Reads a `LayerSheet` and `LayerNodes`; stores only the sums of the rows below a row. There is no sorting, which would
only reorder the few layers within each block.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from PySide6.QtCore import QAbstractItemModel, QModelIndex, QObject, QPersistentModelIndex, Qt, Signal

from app.pages.layers.layer_grid import LayerGrid, expert_of, make_grid
from app.pages.layers.layer_sheet import LayerSheet, SelectionSummary, summarize
from app.pages.layers.list.layer_nodes import LayerNodes, make_nodes
from app.pages.layers.map.cells import MapCells
from core.wording import human, short_figure

if TYPE_CHECKING:
    from app.theme import Theme

NAME, SHAPE, BITS, GROUP, SYMMETRIC, SIZE, LOSS_INCREASE, WHY = range(8)
_LEFT: Final = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
_ALIGNMENTS: Final = {
    **dict.fromkeys((GROUP, SYMMETRIC), Qt.AlignmentFlag.AlignHCenter | Qt.AlignmentFlag.AlignVCenter),
    **dict.fromkeys((SHAPE, BITS, SIZE, LOSS_INCREASE), Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter),
}
_ROLES: Final = frozenset(
    {
        Qt.ItemDataRole.DisplayRole,
        Qt.ItemDataRole.TextAlignmentRole,
        Qt.ItemDataRole.DecorationRole,
        Qt.ItemDataRole.ToolTipRole,
    }
)
_DASH: Final = "\N{EN DASH}"

Index = QModelIndex | QPersistentModelIndex


class LayerTable(QAbstractItemModel):
    """One row per layer, below rows with sums. The internal id of an index is its node.

    Signals:
        figures_changed: The texts of the rows changed, but not the rows.
    """

    figures_changed = Signal()

    def __init__(self, theme: Theme, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.theme = theme
        self._sheet: LayerSheet | None = None
        self._grid: LayerGrid | None = None
        self._matches: frozenset[int] | None = None
        self._nodes = LayerNodes(0, [], [], [], [], [], {}, {}, {})
        self._sums: dict[int, SelectionSummary] = {}
        self._titles = (
            self.tr("Layer"),
            self.tr("Shape"),
            self.tr("Bits"),
            self.tr("Group"),
            self.tr("Symmetric"),
            self.tr("Size"),
            self.tr("Loss increase"),
            self.tr("Why"),
        )
        theme.changed.connect(self._values_changed)

    @property
    def nodes(self) -> LayerNodes:
        """The nodes of the rows."""
        return self._nodes

    @property
    def filtered(self) -> bool:
        """Return whether a filter is active."""
        return self._matches is not None

    @property
    def loss_increase_known(self) -> bool:
        """Return whether the column of the loss increase has values."""
        return self._sheet is not None and self._sheet.loss_increase is not None

    def index_of(self, node: int, column: int = NAME) -> QModelIndex:
        """Return the index of a node."""
        return self.createIndex(self._nodes.rows[node], column, node)

    def show_sheet(self, sheet: LayerSheet | None, grid: LayerGrid | None = None) -> None:
        """Show the layers of a sheet. If only the values changed, the rows are kept.

        Args:
            grid: an existing grid of the same tree, collapsed or not.
        """
        known = self._sheet
        self._sheet = sheet
        self._sums.clear()
        if sheet is not None and known is not None and known.tree is sheet.tree:
            self._values_changed()
            return
        self._matches = None
        if sheet is None:
            self._grid = None
        elif grid is not None and all(band.folded for band in grid.bands):
            self._grid = grid
        else:
            self._grid = make_grid(sheet.tree)
        self._lay_out()

    def set_matches(self, matches: frozenset[int] | None) -> None:
        """Show only these layers and their parents; None shows all."""
        if matches != self._matches:
            self._matches = matches
            self._lay_out()

    def mix(self, node: int) -> dict[int, int]:
        """Return the bits below a node in ascending order, with their number of layers."""
        if self._sheet is None:
            return {}
        if not self._nodes.counts[node]:
            return {self._sheet.bits[self._nodes.layers[node]]: 1}
        return dict(sorted(self._sum(node).bits.items()))

    # --- QAbstractItemModel ---------------------------------------------------------------------------------

    def index(self, row: int, column: int, parent: Index = QModelIndex()) -> QModelIndex:  # noqa: B008 - Qt's default
        """Return the index of a child."""
        nodes = self._nodes
        if row < 0 or not 0 <= column < len(self._titles):
            return QModelIndex()
        if not parent.isValid():
            return self.createIndex(row, column, row) if row < nodes.tops else QModelIndex()
        above = parent.internalId()
        if parent.column() != NAME or row >= nodes.counts[above]:
            return QModelIndex()
        return self.createIndex(row, column, nodes.firsts[above] + row)

    def parent(self, index: Index | None = None) -> Any:
        """Return the parent of an index; without an index, the parent object."""
        if index is None:
            return super().parent()
        above = self._nodes.parents[index.internalId()] if index.isValid() else -1
        return self.createIndex(self._nodes.rows[above], NAME, above) if above >= 0 else QModelIndex()

    def rowCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008 - Qt's name and default
        """Return the number of children."""
        if not parent.isValid():
            return self._nodes.tops
        return self._nodes.counts[parent.internalId()] if parent.column() == NAME else 0

    def hasChildren(self, parent: Index = QModelIndex()) -> bool:  # noqa: B008 - Qt's name and default
        """Return whether an index has children."""
        nodes = self._nodes
        if not parent.isValid():
            return nodes.tops > 0
        return nodes.counts[parent.internalId()] > 0 and parent.column() == NAME

    def columnCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008 - Qt's name and default
        """Return the number of columns."""
        return len(self._titles)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return the titles of the columns."""
        if orientation != Qt.Orientation.Horizontal or not 0 <= section < len(self._titles):
            return None
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return self.alignment(section)
        return self._titles[section] if role == Qt.ItemDataRole.DisplayRole else None

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return the data of a cell."""
        if role not in _ROLES or self._sheet is None or not index.isValid():
            return None
        node, column = index.internalId(), index.column()
        if role == Qt.ItemDataRole.DisplayRole:
            return self.text(node, column)
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return self.alignment(column)
        if role == Qt.ItemDataRole.DecorationRole and column == BITS:
            mix = self.mix(node)
            return self.theme.bits_color(next(iter(mix))) if len(mix) == 1 else None
        if role == Qt.ItemDataRole.ToolTipRole:
            # Escaped, because names in a checkpoint are untrusted.
            return f"<p style='white-space:pre'>{html.escape(self._tip(self._sheet, node))}</p>"
        return None

    # --- texts ----------------------------------------------------------------------------------------------

    def text(self, node: int, column: int) -> str:
        """Return the text of a cell; "" without a sheet."""
        if self._sheet is None:
            return ""
        above = self._nodes.counts[node] > 0
        return self._text_of_sum(node, column) if above else self._text(self._sheet, node, column)

    @staticmethod
    def alignment(column: int) -> Qt.AlignmentFlag:
        """Return the alignment of a column."""
        return _ALIGNMENTS.get(column, _LEFT)

    def _text(self, sheet: LayerSheet, node: int, column: int) -> str:
        layer = self._nodes.layers[node]
        if column == NAME:
            linear = sheet.linear(layer)
            if self._nodes.parents[node] in self._nodes.stems:
                return self.tr("Expert {}").format(expert_of(linear.kind))
            return linear.kind
        if column == SHAPE:
            return sheet.shape(layer)
        if column == LOSS_INCREASE:
            now = sheet.loss_increase_now(layer)
            return f"{_DASH if now is None else short_figure(now)}\N{EN SPACE}"
        case = sheet.case(layer)
        scheme = case.scheme
        if column == BITS:
            return str(scheme.bits)
        if column == SIZE:
            return f"{human(sheet.size(layer))}\N{EN SPACE}"  # distance to the next column
        if column == WHY:
            return f"{case.why}; {case.fallback}" if case.fallback else case.why
        if not scheme.quantized:
            return _DASH
        return self._group(scheme.group_size) if column == GROUP else self._symmetry(scheme.sym)

    def _text_of_sum(self, node: int, column: int) -> str:
        """Return the text of a cell of a row with children."""
        if column == NAME:
            block, count = self._nodes.blocks.get(node), self._nodes.counts[node]
            if block is not None:
                return self.tr("Block {}").format(block)
            return f"{self._nodes.stems[node]}  \N{MULTIPLICATION SIGN}{count}"
        found = self._sum(node)
        if column == BITS:
            bits = list(self.mix(node))
            return str(bits[0]) if len(bits) == 1 else f"{bits[0]}{_DASH}{bits[-1]}"
        if column == SIZE:
            return f"{human(found.after)}\N{EN SPACE}"
        if column == LOSS_INCREASE:
            return f"{_DASH if found.loss_increase_now is None else short_figure(found.loss_increase_now)}\N{EN SPACE}"
        if column == SHAPE or not (found.groups or column == WHY):
            return "" if column == SHAPE else _DASH
        told: dict[int, Mapping[Any, int]] = {GROUP: found.groups, SYMMETRIC: found.syms, WHY: found.whys}
        values = list(told[column])
        if len(values) > 1:
            return self.tr("{} reasons").format(len(values)) if column == WHY else self.tr("mixed")
        if column == WHY:
            return str(values[0])
        return self._group(values[0]) if column == GROUP else self._symmetry(values[0])

    def _tip(self, sheet: LayerSheet, node: int) -> str:
        if not self._nodes.counts[node]:
            return sheet.describe(self._nodes.layers[node])
        if node in self._nodes.stems and self._grid is not None and self._matches is None:
            return MapCells(self._grid, sheet).describe(self._nodes.layers[node])
        found = self._sum(node)
        parts = (f"{count:,} at {bits} bits" for bits, count in self.mix(node).items())
        lines = [
            f"{self._text_of_sum(node, NAME)}: {found.count:,} layers",
            ", ".join(parts),
            f"{human(found.before)} \N{RIGHTWARDS ARROW} {human(found.after)}",
            ""
            if found.loss_increase_now is None
            else f"Predicted loss increase: {short_figure(found.loss_increase_now)} now",
        ]
        return "\n".join(line for line in lines if line)

    def _group(self, size: int) -> str:
        return self.tr("row") if size == -1 else str(size)

    def _symmetry(self, sym: bool) -> str:
        return self.tr("yes") if sym else self.tr("no")

    def _sum(self, node: int) -> SelectionSummary:
        found = self._sums.get(node)
        if found is None and self._sheet is not None:
            found = self._sums[node] = summarize(self._sheet, self._nodes.below(node))
        assert found is not None
        return found

    def _lay_out(self) -> None:
        # Reset the model: moving 20,000 rows one by one takes longer.
        self.beginResetModel()
        self._sums.clear()
        if self._grid is None:
            self._nodes = LayerNodes(0, [], [], [], [], [], {}, {}, {})
        else:
            self._nodes = make_nodes(self._grid, self._matches)
        self.endResetModel()

    def _values_changed(self) -> None:
        if self._nodes.tops:
            self.dataChanged.emit(self.index(0, 0), self.index(self._nodes.tops - 1, len(self._titles) - 1))
        self.figures_changed.emit()
