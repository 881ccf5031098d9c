"""The tree of layers as it is used: clicks, ranges and keys change the shared selection, and rows show it."""

from __future__ import annotations

import pytest
from PySide6.QtCore import QModelIndex, QPoint, Qt
from pytestqt.qtbot import QtBot

from app.pages.layers.layer_grid import make_grid
from app.pages.layers.layer_sheet import make_sheet
from app.pages.layers.list.layer_list import LayerList
from app.pages.layers.list.layer_table import BITS, LOSS_INCREASE, NAME, SYMMETRIC, WHY, LayerTable
from app.pages.layers.selection import Selection
from app.theme import Theme
from core.bitsmap import BitsMap, Rule
from core.model.tree import resolve_schemes
from core.schemes import LayerScheme
from core.sensitivity.table import SensitivityTable
from tests.app.pages.layers.experts import mixture

LEFT = Qt.MouseButton.LeftButton
CTRL, SHIFT = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.ShiftModifier
TREE = mixture(6, 4)
GRID = make_grid(TREE)
MAP = BitsMap(LayerScheme(4, 64), (Rule("*.experts.2.*", bits=8),))


@pytest.fixture
def table(theme: Theme) -> LayerTable:
    made = LayerTable(theme)
    made.show_sheet(make_sheet(TREE, resolve_schemes(TREE, MAP), "auto_round", {}))
    return made


@pytest.fixture
def rows(qtbot: QtBot, table: LayerTable, selection: Selection) -> LayerList:
    made = LayerList(table, selection)
    qtbot.addWidget(made)
    made.resize(900, 500)
    with qtbot.waitExposed(made):
        made.show()
    return made


def at(rows: LayerList, *path: int) -> QModelIndex:
    """The index that is reached by a row, a row below it, and so on; opened on the way."""
    index = QModelIndex()
    for row in path:
        if index.isValid():
            rows.expand(index)
        index = rows.model().index(row, NAME, index)
    return index


def click(
    qtbot: QtBot, rows: LayerList, *path: int, keys: Qt.KeyboardModifier = Qt.KeyboardModifier.NoModifier
) -> None:
    index = at(rows, *path)
    rows.scrollTo(index)
    qtbot.mouseClick(rows.viewport(), LEFT, keys, rows.visualRect(index).center())


def block(number: int) -> set[int]:
    return {n for n, linear in enumerate(TREE.linears) if linear.block == number}


# --- From the rows to the selection -------------------------------------------------------------------------


def test_a_block_stands_for_its_layers(qtbot: QtBot, rows: LayerList, selection: Selection) -> None:
    click(qtbot, rows, 2)
    assert selection.layers == block(2)
    assert selection.current in block(2)


def test_a_module_stands_for_its_experts_and_an_expert_for_itself(
    qtbot: QtBot, rows: LayerList, selection: Selection
) -> None:
    click(qtbot, rows, 2, 5)
    assert selection.layers == set(GRID.layers_at(2, 5))
    click(qtbot, rows, 2, 5, 3)
    assert selection.layers == {GRID.layers_at(2, 5)[3]}


def test_ctrl_adds_and_takes_out(qtbot: QtBot, rows: LayerList, selection: Selection) -> None:
    click(qtbot, rows, 1)
    click(qtbot, rows, 3, keys=CTRL)
    click(qtbot, rows, 1, keys=CTRL)
    assert selection.layers == block(3)


def test_ctrl_goes_on_from_what_the_map_selected(qtbot: QtBot, rows: LayerList, selection: Selection) -> None:
    selection.select([0, 1])
    click(qtbot, rows, 3, keys=CTRL)
    assert selection.layers == {0, 1, *block(3)}


def test_shift_takes_all_between(qtbot: QtBot, rows: LayerList, selection: Selection) -> None:
    click(qtbot, rows, 1)
    click(qtbot, rows, 4, keys=SHIFT)
    click(qtbot, rows, 3, keys=SHIFT)
    assert selection.layers == block(1) | block(2) | block(3)


def test_an_open_block_in_a_range_means_the_rows_of_it_that_are_in(
    qtbot: QtBot, rows: LayerList, selection: Selection
) -> None:
    at(rows, 2, 0)
    click(qtbot, rows, 1)
    click(qtbot, rows, 2, 1, keys=SHIFT)
    assert selection.layers == {*block(1), GRID.layer_at(2, 0), GRID.layer_at(2, 1)}


def test_a_drag_selects_what_it_passes(qtbot: QtBot, rows: LayerList, selection: Selection) -> None:
    first, last = (rows.visualRect(at(rows, row)).center() for row in (1, 3))
    qtbot.mousePress(rows.viewport(), LEFT, pos=first)
    for step in range(0, last.y() - first.y() + 1, 4):
        qtbot.mouseMove(rows.viewport(), first + QPoint(0, step))
    qtbot.mouseMove(rows.viewport(), last)
    qtbot.mouseRelease(rows.viewport(), LEFT, pos=last)
    assert selection.layers == block(1) | block(2) | block(3)


def test_keys_move_and_extend(qtbot: QtBot, rows: LayerList, selection: Selection) -> None:
    click(qtbot, rows, 1)
    qtbot.keyClick(rows, Qt.Key.Key_Down)
    assert selection.layers == block(2)
    qtbot.keyClick(rows, Qt.Key.Key_Down, SHIFT)
    assert selection.layers == block(2) | block(3)


def test_enter_and_the_arrows_open_and_close(qtbot: QtBot, rows: LayerList) -> None:
    click(qtbot, rows, 1)
    for key, is_open in (
        (Qt.Key.Key_Return, True),
        (Qt.Key.Key_Return, False),
        (Qt.Key.Key_Right, True),
        (Qt.Key.Key_Left, False),
    ):
        qtbot.keyClick(rows, key)
        assert rows.isExpanded(at(rows, 1)) is is_open


# --- From the selection to the rows -------------------------------------------------------------------------


def test_a_block_is_selected_wholly_partly_or_not(rows: LayerList, selection: Selection) -> None:
    selection.select([*block(1), *GRID.layers_at(2, 5)])
    states = {row: rows.chosen(at(rows, row).internalId()) for row in (0, 1, 2)}
    assert states == {0: False, 1: True, 2: None}
    assert rows.chosen(at(rows, 2, 5).internalId()) is True


def test_a_selected_row_looks_selected(rows: LayerList, selection: Selection) -> None:
    seen = []
    for chosen in ((), [0], block(0)):
        selection.select(chosen)
        seen.append(rows.viewport().grab(rows.visualRect(at(rows, 0))).toImage())
    assert seen[0] != seen[1]
    assert seen[1] != seen[2]


def test_the_block_of_the_current_layer_opens_and_closes_behind_it(rows: LayerList, selection: Selection) -> None:
    selection.set_current(GRID.layer_at(4, 1))
    assert rows.isExpanded(at(rows, 4))
    assert rows.currentIndex().data() == "self_attn.k_proj"
    selection.set_current(GRID.layer_at(5, 1))
    assert [rows.isExpanded(at(rows, row)) for row in (4, 5)] == [False, True]


def test_experts_stay_folded_when_one_becomes_current(rows: LayerList, selection: Selection) -> None:
    selection.set_current(GRID.layers_at(4, 5)[2])
    assert str(rows.currentIndex().data()).startswith("mlp.experts.*.gate_proj")
    assert selection.current == GRID.layers_at(4, 5)[2]


def test_what_the_user_opened_stays_open(rows: LayerList, selection: Selection) -> None:
    rows.expand(at(rows, 4))
    selection.set_current(GRID.layer_at(4, 1))
    selection.set_current(GRID.layer_at(5, 1))
    assert rows.isExpanded(at(rows, 4))


# --- The filter ---------------------------------------------------------------------------------------------


def test_a_filter_opens_what_it_shows_and_gives_back_what_was_open(rows: LayerList, table: LayerTable) -> None:
    rows.expand(at(rows, 3))
    table.set_matches(frozenset(GRID.layers_at(1, 5)[:2]))
    assert rows.isExpanded(at(rows, 0))
    assert rows.isExpanded(rows.model().index(0, NAME, at(rows, 0)))
    table.set_matches(None)
    assert [rows.isExpanded(at(rows, row)) for row in (1, 3)] == [False, True]


def test_a_filter_leaves_the_selection_alone(rows: LayerList, table: LayerTable, selection: Selection) -> None:
    selection.select(block(2))
    table.set_matches(frozenset(block(1)))
    assert selection.layers == block(2)
    table.set_matches(None)
    assert rows.chosen(at(rows, 2).internalId()) is True


def test_a_filtered_block_stands_for_what_is_shown_of_it(
    qtbot: QtBot, rows: LayerList, table: LayerTable, selection: Selection
) -> None:
    shown = frozenset(GRID.layers_at(1, 5)[:2])
    table.set_matches(shown)
    click(qtbot, rows, 0)
    assert selection.layers == shown


# --- Columns ------------------------------------------------------------------------------------------------


def test_loss_increase_has_a_column_once_it_is_known(rows: LayerList, table: LayerTable) -> None:
    assert rows.isColumnHidden(LOSS_INCREASE)
    loss_increase = SensitivityTable("fisher", (TREE.linears[0].name,), (LayerScheme(4, 64),), ((0.5,),))
    table.show_sheet(make_sheet(TREE, resolve_schemes(TREE, MAP), "auto_round", {}, loss_increase))
    assert not rows.isColumnHidden(LOSS_INCREASE)


@pytest.mark.parametrize("width", [300, 480, 700, 1200])
def test_columns_give_way_before_there_is_a_scroll_bar(qtbot: QtBot, rows: LayerList, width: int) -> None:
    rows.resize(max(width, 480), 500)
    qtbot.waitUntil(lambda: rows.horizontalScrollBar().maximum() == 0)
    assert rows.isColumnHidden(WHY) is (width < 1000)
    assert rows.isColumnHidden(SYMMETRIC) is (width < 600)
    assert not rows.isColumnHidden(BITS)
