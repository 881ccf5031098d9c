"""Presses, drags and moves on a small map, as sets of selected layers."""

from __future__ import annotations

import pytest

from app.pages.layers.layer_grid import OUTER_ROW, LayerGrid, make_grid
from app.pages.layers.map.cursor import MapCursor
from app.pages.layers.selection import Selection
from tests.app.pages.layers.experts import mixture
from tests.core.paper_model import llama


@pytest.fixture
def grid() -> LayerGrid:
    return make_grid(llama(4, tied=False))


@pytest.fixture
def cursor(grid: LayerGrid, selection: Selection) -> MapCursor:
    return MapCursor(grid, selection)


def press(cursor: MapCursor, row: int, column: int, *, extend: bool = False, toggle: bool = False) -> None:
    cursor.press_cell((row, column), extend=extend, toggle=toggle)


def test_a_press_selects_one_layer(cursor: MapCursor, grid: LayerGrid, selection: Selection) -> None:
    press(cursor, 0, 0)
    press(cursor, 1, 2)
    assert selection.layers == {grid.layer_at(1, 2)}
    assert cursor.place == (1, 2)


def test_a_press_with_ctrl_adds_and_removes(cursor: MapCursor, grid: LayerGrid, selection: Selection) -> None:
    press(cursor, 0, 0)
    press(cursor, 1, 2, toggle=True)
    press(cursor, 0, 0, toggle=True)
    assert selection.layers == {grid.layer_at(1, 2)}


def test_a_press_with_shift_selects_the_rectangle(cursor: MapCursor, grid: LayerGrid, selection: Selection) -> None:
    press(cursor, 0, 1)
    press(cursor, 2, 3, extend=True)
    assert selection.layers == set(grid.within((0, 1), (2, 3)))


def test_a_second_shift_starts_at_the_same_cell(cursor: MapCursor, grid: LayerGrid, selection: Selection) -> None:
    press(cursor, 2, 2)
    press(cursor, 3, 3, extend=True)
    press(cursor, 1, 1, extend=True)
    assert selection.layers == set(grid.within((1, 1), (2, 2)))


def test_a_drag_selects_the_rectangle_under_it(cursor: MapCursor, grid: LayerGrid, selection: Selection) -> None:
    press(cursor, 0, 0)
    cursor.drag_to((3, 3))
    cursor.drag_to((1, 1))
    assert selection.layers == set(grid.within((0, 0), (1, 1)))


def test_a_drag_with_ctrl_keeps_what_was_selected(cursor: MapCursor, grid: LayerGrid, selection: Selection) -> None:
    press(cursor, 3, 6)
    press(cursor, 0, 0, toggle=True)
    cursor.drag_to((0, 1))
    assert selection.layers == {grid.layer_at(3, 6), *grid.within((0, 0), (0, 1))}


def test_after_the_release_nothing_is_dragged(cursor: MapCursor, selection: Selection) -> None:
    press(cursor, 0, 0)
    cursor.release()
    assert not cursor.drag_to((3, 3))
    assert len(selection.layers) == 1


def test_columns_and_rows(cursor: MapCursor, grid: LayerGrid, selection: Selection) -> None:
    cursor.press_column(2, extend=False, toggle=False)
    assert selection.layers == set(grid.column(2))
    cursor.press_row(1, extend=False, toggle=True)
    assert selection.layers == {*grid.column(2), *grid.row(1)}


def test_a_range_of_columns(cursor: MapCursor, grid: LayerGrid, selection: Selection) -> None:
    cursor.press_column(1, extend=False, toggle=False)
    cursor.press_column(3, extend=True, toggle=False)
    assert selection.layers == {*grid.column(1), *grid.column(2), *grid.column(3)}


def test_a_press_beside_the_cells_clears(cursor: MapCursor, selection: Selection) -> None:
    press(cursor, 0, 0)
    cursor.press_nothing(keep=False)
    assert selection.layers == frozenset()


def test_the_first_move_goes_to_the_first_cell(cursor: MapCursor, selection: Selection) -> None:
    cursor.go(cursor.step(1, 0))
    assert cursor.place == (0, 0)


@pytest.mark.parametrize(("down", "right", "place"), [(1, 0, (2, 1)), (-1, 0, (0, 1)), (0, 1, (1, 2)), (0, -1, (1, 0))])
def test_moves_in_four_directions(cursor: MapCursor, down: int, right: int, place: tuple[int, int]) -> None:
    press(cursor, 1, 1)
    assert cursor.step(down, right) == place


@pytest.mark.parametrize(("place", "move"), [((3, 6), (1, 0)), ((3, 6), (0, 1)), ((0, 0), (0, -1))])
def test_there_is_nothing_beyond_the_edges(cursor: MapCursor, place: tuple[int, int], move: tuple[int, int]) -> None:
    press(cursor, *place)
    assert cursor.step(*move) is None


def test_above_the_blocks_is_the_head(cursor: MapCursor) -> None:
    press(cursor, 0, 0)
    cursor.go(cursor.step(-1, 0))
    assert cursor.place == (OUTER_ROW, 1)
    assert cursor.step(1, 0) == (0, 1)


def test_moves_with_shift_extend_and_shrink(cursor: MapCursor, grid: LayerGrid, selection: Selection) -> None:
    press(cursor, 1, 1)
    cursor.go(cursor.step(1, 0), extend=True)
    cursor.go(cursor.step(0, 1), extend=True)
    assert selection.layers == set(grid.within((1, 1), (2, 2)))
    cursor.go(cursor.step(-1, 0), extend=True)
    assert selection.layers == set(grid.within((1, 1), (1, 2)))


def test_moves_with_ctrl_leave_the_selection_alone(cursor: MapCursor, grid: LayerGrid, selection: Selection) -> None:
    press(cursor, 1, 1)
    cursor.go(cursor.step(0, 1), keep=True)
    assert selection.layers == {grid.layer_at(1, 1)}
    cursor.toggle_current()
    assert selection.layers == {grid.layer_at(1, 1), grid.layer_at(1, 2)}


def test_a_range_begins_where_another_view_has_gone(cursor: MapCursor, grid: LayerGrid, selection: Selection) -> None:
    press(cursor, 0, 0)
    selection.set_current(grid.layer_at(2, 2))
    cursor.go(cursor.step(0, 1), extend=True)
    assert selection.layers == set(grid.within((2, 2), (2, 3)))


def test_home_end_and_pages(cursor: MapCursor) -> None:
    press(cursor, 1, 3)
    assert cursor.end(back=True, far=False) == (1, 0)
    assert cursor.end(back=False, far=True) == (3, 6)
    assert (cursor.page(10), cursor.page(-10)) == ((3, 3), (0, 3))


# --- Folded experts -----------------------------------------------------------------------------------------


@pytest.fixture
def folded() -> LayerGrid:
    return make_grid(mixture(3, 8))


def test_a_folded_cell_is_pressed_as_one(folded: LayerGrid, selection: Selection) -> None:
    cursor = MapCursor(folded, selection)
    press(cursor, 1, 5)
    assert selection.layers == set(folded.layers_at(1, 5))
    press(cursor, 1, 5, toggle=True)
    assert selection.layers == frozenset()


def test_a_partly_selected_cell_becomes_whole_first(folded: LayerGrid, selection: Selection) -> None:
    cursor = MapCursor(folded, selection)
    selection.select(folded.layers_at(1, 5)[:3])
    press(cursor, 1, 5, toggle=True)
    assert selection.layers == set(folded.layers_at(1, 5))


def test_ranges_and_moves_take_folded_cells_whole(folded: LayerGrid, selection: Selection) -> None:
    cursor = MapCursor(folded, selection)
    press(cursor, 0, 4)
    cursor.go(cursor.step(0, 1), extend=True)
    cursor.go(cursor.step(1, 0), extend=True)
    assert selection.layers == set(folded.within((0, 4), (1, 5)))
    cursor.go(cursor.step(0, 1))
    assert selection.layers == set(folded.layers_at(1, 6))
    cursor.toggle_current()
    assert selection.layers == frozenset()


def test_the_heading_of_experts_selects_all_their_columns(folded: LayerGrid, selection: Selection) -> None:
    grid = folded.unfold(folded.bands[0].stem)
    MapCursor(grid, selection).press_columns(grid.bands[0].columns, extend=False, toggle=False)
    assert selection.layers == set(folded.column(5))


def test_a_layer_keeps_its_place_in_mind_when_its_column_is_folded(folded: LayerGrid, selection: Selection) -> None:
    opened = folded.unfold(folded.bands[0].stem)
    cursor = MapCursor(opened, selection)
    press(cursor, 2, 9)
    assert MapCursor(folded, selection).place == (2, 5)
