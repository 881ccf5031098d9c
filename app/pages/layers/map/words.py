"""Texts of the map: tooltips, and the description of the current cell for screen readers."""

from __future__ import annotations

from app.pages.layers.layer_grid import NOTHING, OUTER_ROW
from app.pages.layers.map.cells import MapCells
from app.pages.layers.map.geometry import Hit


def tip(cells: MapCells, hit: Hit) -> str:
    """Return the tooltip of a part of the map."""
    if hit.part in ("column", "band", "fold"):
        return _of_title(cells, hit)
    if hit.part == "row":
        return f"Block {hit.row}"
    if hit.part == "copied":
        return cells.grid.copied[hit.row].note
    if hit.part != "cell":
        return ""
    layer = cells.grid.layer_at(hit.row, hit.column)
    if layer == NOTHING:
        return cells.grid.outer[hit.column].note if hit.row == OUTER_ROW else ""
    return cells.describe(layer)


def spoken(cells: MapCells, place: tuple[int, int], selected: frozenset[int]) -> str:
    """Return the description of the cell at a place, with its selection state."""
    layers = cells.grid.layers_at(*place)
    state = "partly selected"
    if selected.issuperset(layers):
        state = "selected"
    elif selected.isdisjoint(layers):
        state = "not selected"
    return f"{cells.spoken(layers[0])}, {state}"


def _of_title(cells: MapCells, hit: Hit) -> str:
    band = cells.grid.band_at(hit.column)
    if band is None or (hit.part == "column" and not band.folded):
        return f"{cells.grid.kinds[hit.column]} in every block"
    does = "shows a column for each expert" if band.folded else "collapses them into one column"
    return f"{band.stem} of {band.experts:,} experts in every block\nThe box, Enter or a double-click {does}."
