"""The table of layers: what its cells say, sorting, the filter, and rows that stay where they are."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from PySide6.QtCore import QAbstractItemModel, Qt
from pytestqt.modeltest import ModelTester
from pytestqt.qtbot import QtBot

from app.models.layer_sheet import LayerSheet, make_sheet
from app.models.layer_table import BITS, BLOCK, GROUP, NAME, SHAPE, SIZE, SYMMETRIC, WHY, LayerTable
from app.theme import Theme
from core.bitsmap import BitsMap, Rule
from core.model.tree import ModelTree, resolve_schemes
from core.schemes import LayerScheme
from tests.core.paper_model import llama

MAP = BitsMap(LayerScheme(4, 64), (Rule("*.down_proj", bits=8), Rule("*.v_proj", bits=16)))


def sheet_of(tree: ModelTree, bits_map: BitsMap = MAP) -> LayerSheet:
    return make_sheet(tree, resolve_schemes(tree, bits_map), "auto_round", {})


@pytest.fixture
def tree() -> ModelTree:
    return llama(12)


@pytest.fixture
def table(theme: Theme, tree: ModelTree) -> LayerTable:
    made = LayerTable(theme)
    made.show_sheet(sheet_of(tree))
    return made


def text(table: QAbstractItemModel, row: int, column: int) -> str:
    return str(table.index(row, column).data())


def test_it_is_a_sound_model(table: LayerTable, qtmodeltester: ModelTester) -> None:
    qtmodeltester.check(table)


def test_a_row_says_what_a_layer_gets(table: LayerTable) -> None:
    said = {column: text(table, 0, column) for column in (NAME, BLOCK, SHAPE, BITS, GROUP, SYMMETRIC, SIZE, WHY)}
    assert said == {
        NAME: "model.layers.0.mlp.down_proj",
        BLOCK: "0",
        SHAPE: "576 × 1536",
        BITS: "8",
        GROUP: "64",
        SYMMETRIC: "yes",
        SIZE: "926 kB\N{EN SPACE}",
        WHY: "rule 1  *.down_proj",
    }


def test_a_layer_in_16_bits_has_no_group(table: LayerTable) -> None:
    assert (text(table, 6, BITS), text(table, 6, GROUP), text(table, 6, SYMMETRIC)) == ("16", "–", "–")


def test_names_are_sorted_as_people_count(table: LayerTable) -> None:
    table.sort(NAME)
    assert text(table, 7, NAME).startswith("model.layers.1.")


@pytest.mark.parametrize("column", [BLOCK, SHAPE, BITS, GROUP, SYMMETRIC, SIZE, WHY])
def test_equal_rows_stay_in_the_order_of_the_model(table: LayerTable, column: int) -> None:
    table.sort(column)
    said = [(text(table, row, column), table.rows[row]) for row in range(table.rowCount())]
    runs = [(one[1], other[1]) for one, other in pairwise(said) if one[0] == other[0]]
    assert runs
    assert all(first < second for first, second in runs)


def test_sorting_downwards_and_not_at_all(table: LayerTable) -> None:
    table.sort(BITS, Qt.SortOrder.DescendingOrder)
    assert text(table, 0, BITS) == "16"
    table.sort(-1)
    assert table.rows == list(range(84))


def test_the_filter_leaves_the_order_alone(table: LayerTable) -> None:
    table.sort(BITS, Qt.SortOrder.DescendingOrder)
    table.set_matches(frozenset({0, 1, 6}))
    assert table.rows == [6, 0, 1]
    assert (table.row_of(0), table.row_of(2)) == (1, -1)


def test_other_bits_of_the_same_layers_move_no_row(qtbot: QtBot, table: LayerTable, tree: ModelTree) -> None:
    table.sort(BITS)
    before = list(table.rows)
    with qtbot.waitSignal(table.dataChanged), qtbot.assertNotEmitted(table.modelReset):
        table.show_sheet(sheet_of(tree, replace(MAP, rules=())))
    assert table.rows == before
    assert text(table, 0, BITS) == "4"


def test_another_model_starts_anew(table: LayerTable) -> None:
    table.set_matches(frozenset({0}))
    table.show_sheet(sheet_of(llama(2)))
    assert table.rows == list(range(14))


def test_without_a_model_it_is_empty(table: LayerTable) -> None:
    table.show_sheet(None)
    assert table.rowCount() == 0


def test_a_strange_name_is_no_markup(theme: Theme) -> None:
    tree = llama(1, shapes={"<b>bold</b>": (64, 64)})
    table = LayerTable(theme)
    table.show_sheet(sheet_of(tree, BitsMap()))
    assert "&lt;b&gt;" in str(table.index(0, NAME).data(Qt.ItemDataRole.ToolTipRole))
