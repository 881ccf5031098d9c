"""The selection logic of the map: current cell, anchor of ranges, drags, and movement by keys.

Works on cells and layers, independent of pixels and Qt events.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from app.pages.layers.layer_grid import NOTHING, OUTER_ROW, LayerGrid
from app.pages.layers.selection import Selection

Place = tuple[int, int]
"""The row and column of a cell."""


class MapCursor:
    """The cursor of a map. The current layer is part of the selection, as other views change it too."""

    def __init__(self, grid: LayerGrid, selection: Selection) -> None:
        self._grid, self._selection = grid, selection
        self._anchor: Place | None = None
        self._anchored_at = NOTHING
        self._kept: frozenset[int] | None = None

    @property
    def place(self) -> Place | None:
        """The place of the current layer."""
        current = self._selection.current
        return self._grid.places[current] if 0 <= current < len(self._grid.places) else None

    # --- mouse ----------------------------------------------------------------------------------------------

    def press_cell(self, place: Place, *, extend: bool, toggle: bool) -> None:
        """Select the layers at a place, or the range from the anchor, or toggle them."""
        layer = self._grid.layer_at(*place)
        if layer == NOTHING:
            self.press_nothing(keep=extend or toggle)
        elif extend:
            self._kept = self._selection.layers if toggle else frozenset()
            self._range_to(place)
        else:
            self._put(place)
            layers = self._grid.layers_at(*place)
            if toggle:
                self._selection.toggle(layers)
                # A drag that begins by removing a layer does not add layers.
                self._kept = self._selection.layers if layer in self._selection.layers else None
            else:
                self._kept = frozenset()
                self._selection.select(layers)

    def press_column(self, column: int, *, extend: bool, toggle: bool) -> None:
        """Select, extend to, or toggle a column."""
        first = self._start() if extend else None
        low, high = sorted((column if first is None or first[0] == OUTER_ROW else first[1], column))
        layers = [layer for number in range(low, high + 1) for layer in self._grid.column(number)]
        self._press_many(layers, extend, toggle)

    def press_columns(self, columns: range, *, extend: bool, toggle: bool) -> None:
        """Select, extend to, or toggle adjacent columns, such as all experts of a module."""
        if extend:
            self.press_column(columns[-1], extend=True, toggle=toggle)
            return
        self._press_many([layer for number in columns for layer in self._grid.column(number)], False, toggle)

    def press_row(self, row: int, *, extend: bool, toggle: bool) -> None:
        """Select, extend to, or toggle a row."""
        first = self._start() if extend else None
        low, high = sorted((row if first is None or first[0] == OUTER_ROW else first[0], row))
        layers = [layer for number in range(low, high + 1) for layer in self._grid.row(number)]
        self._press_many(layers, extend, toggle)

    def press_all(self) -> None:
        """Select every layer of the blocks, but none outside them."""
        self._selection.select(layer for layer, place in enumerate(self._grid.places) if place[0] != OUTER_ROW)

    def press_layers(self, layers: Collection[int], *, keep: bool) -> None:
        """Select layers without a cell of their own, or toggle them; the current cell stays."""
        self._kept = None
        if keep and layers:
            self._selection.toggle(layers)
        elif not keep:
            self._selection.select(layers)

    def press_nothing(self, *, keep: bool) -> None:
        """Clear the selection unless a modifier keeps it."""
        self._kept = None
        if not keep:
            self._selection.clear()

    def drag_to(self, place: Place) -> bool:
        """Select the rectangle from the pressed cell; return False if there is no drag."""
        if self._kept is None or self._anchor is None or self._anchor[0] == OUTER_ROW:
            return False
        self._selection.select(self._kept.union(self._grid.within(self._anchor, place)))
        return True

    def release(self) -> None:
        """End a drag."""
        self._kept = None

    # --- keys -----------------------------------------------------------------------------------------------

    def go(self, place: Place | None, *, extend: bool = False, keep: bool = False) -> None:
        """Set the current cell and select it, or the range from the anchor, or leave the selection unchanged."""
        if place is None:
            return
        if extend:
            self._kept = frozenset()
            self._range_to(place)
            self._kept = None
        else:
            self._put(place)
            if not keep:
                self._selection.select(self._grid.layers_at(*place))

    def toggle_current(self) -> None:
        """Add the current cell to the selection or remove it."""
        if self.place is not None:
            self._selection.toggle(self._grid.layers_at(*self.place))

    def step(self, down: int, right: int) -> Place | None:
        """Return the next cell with a layer in a direction; None at the edge."""
        place = self.place
        if place is None:
            return self.first()
        row, column = place[0] + down, place[1] + right
        if place[0] == OUTER_ROW and down > 0:
            column = min(column, self._grid.columns - 1)
        while OUTER_ROW <= row < self._grid.rows and 0 <= column < max(self._grid.columns, len(self._grid.outer)):
            if row == OUTER_ROW and down:
                return self._nearest(OUTER_ROW, range(len(self._grid.outer)))
            if self._grid.layer_at(row, column) != NOTHING:
                return row, column
            row, column = row + down, column + right
        return None

    def page(self, rows: int) -> Place | None:
        """Return the cell that many rows below (above if negative), limited to the map."""
        place = self.place
        if place is None or place[0] == OUTER_ROW:
            return self.first()
        row, column = place
        goal = min(max(row + rows, 0), self._grid.rows - 1)
        between = range(goal, row, -1 if rows > 0 else 1)
        found = (other for other in between if self._grid.layer_at(other, column) != NOTHING)
        return next(((other, column) for other in found), None)

    def end(self, *, back: bool, far: bool) -> Place | None:
        """Return the first or last cell of the row, or with `far` of the map."""
        place = self.place
        if place is None or (place[0] == OUTER_ROW and not far):
            return self.first()
        row = place[0] if not far else 0 if back else self._grid.rows - 1
        columns = range(self._grid.columns)
        return self._nearest(row, columns if back else reversed(columns))

    def first(self) -> Place | None:
        """Return the first cell of the blocks with a layer."""
        return min((place for place in self._grid.places if place[0] != OUTER_ROW), default=None)

    def _nearest(self, row: int, columns: Iterable[int]) -> Place | None:
        return next(((row, column) for column in columns if self._grid.layer_at(row, column) != NOTHING), None)

    # --- anchor ---------------------------------------------------------------------------------------------

    def _start(self) -> Place | None:
        """Return the start of a range: the anchor, or the current cell if another view changed it since."""
        if self._selection.current != self._anchored_at:
            self._anchor, self._anchored_at = self.place, self._selection.current
        return self._anchor

    def _put(self, place: Place) -> None:
        """Set the current cell and the anchor."""
        self._anchor, self._anchored_at = place, self._grid.layer_at(*place)
        self._selection.set_current(self._anchored_at)

    def _range_to(self, place: Place) -> None:
        start = self._start() or place
        self._anchor, self._anchored_at = start, self._grid.layer_at(*place)
        self._selection.set_current(self._anchored_at)
        kept = self._kept or frozenset()
        self._selection.select(kept.union(self._grid.within(start, place)))

    def _press_many(self, layers: list[int], extend: bool, toggle: bool) -> None:
        self._kept = None
        if not layers:
            return
        if toggle:
            self._selection.toggle(layers)
        else:
            self._selection.select(layers)
        if not extend:
            self._put(self._grid.places[layers[0]])
