"""The tree of layers: what its cells say, what is below what, the filter, and rows that stay where they are."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PySide6.QtCore import QModelIndex, Qt
from pytestqt.modeltest import ModelTester
from pytestqt.qtbot import QtBot

from app.pages.layers.layer_sheet import LayerSheet, make_sheet
from app.pages.layers.list.layer_table import BITS, GROUP, LOSS_INCREASE, NAME, SHAPE, SIZE, SYMMETRIC, WHY, LayerTable
from app.theme import Theme
from core.bitsmap import BitsMap, Rule
from core.model.tree import ModelTree, resolve_schemes
from core.schemes import LayerScheme
from core.sensitivity.table import SensitivityTable
from tests.app.pages.layers.experts import mixture
from tests.core.paper_model import llama

MAP = BitsMap(LayerScheme(4, 64), (Rule("*.down_proj", bits=8), Rule("*.v_proj", bits=16)))
DOWN, V = 6, 2
"""Rows in a block, in the order of computing."""


def sheet_of(tree: ModelTree, bits_map: BitsMap = MAP, loss_increase: SensitivityTable | None = None) -> LayerSheet:
    return make_sheet(tree, resolve_schemes(tree, bits_map), "auto_round", {}, loss_increase)


@pytest.fixture
def tree() -> ModelTree:
    return llama(12)


@pytest.fixture
def table(theme: Theme, tree: ModelTree) -> LayerTable:
    made = LayerTable(theme)
    made.show_sheet(sheet_of(tree))
    return made


@pytest.fixture
def experts(theme: Theme) -> LayerTable:
    made = LayerTable(theme)
    made.show_sheet(sheet_of(mixture(2, 4)))
    return made


def at(table: LayerTable, *rows: int, column: int = NAME) -> QModelIndex:
    """The index that is reached by a row in the model, a row in that, and so on."""
    index = QModelIndex()
    for row in rows:
        index = table.index(row, NAME, index)
    return index.siblingAtColumn(column)


def text(table: LayerTable, *rows: int, column: int = NAME) -> str:
    return str(at(table, *rows, column=column).data())


@pytest.mark.parametrize("name", ["table", "experts"])
def test_it_is_a_sound_model(name: str, qtmodeltester: ModelTester, request: pytest.FixtureRequest) -> None:
    qtmodeltester.check(request.getfixturevalue(name))


def test_blocks_hold_their_layers_and_the_head_stands_beside_them(table: LayerTable) -> None:
    assert [text(table, row) for row in (0, 11, 12)] == ["Block 0", "Block 11", "lm_head"]
    names = [text(table, 3, row) for row in range(table.rowCount(at(table, 3)))]
    assert names[:2] == ["self_attn.q_proj", "self_attn.k_proj"]
    assert len(names) == 7


def test_experts_are_a_third_level(experts: LayerTable) -> None:
    assert text(experts, 1, 5) == "mlp.experts.*.gate_proj  ×4"
    assert [text(experts, 1, 5, row) for row in range(4)] == [f"Expert {number}" for number in range(4)]
    assert experts.rowCount(at(experts, 1, 5, 3)) == 0


def test_a_row_says_what_a_layer_gets(table: LayerTable) -> None:
    said = {column: text(table, 0, DOWN, column=column) for column in (NAME, SHAPE, BITS, GROUP, SYMMETRIC, SIZE, WHY)}
    assert said == {
        NAME: "mlp.down_proj",
        SHAPE: "576 × 1536",
        BITS: "8",
        GROUP: "64",
        SYMMETRIC: "yes",
        SIZE: "926 kB\N{EN SPACE}",
        WHY: "rule 1  *.down_proj",
    }


def test_a_block_says_what_its_layers_come_to(table: LayerTable, tree: ModelTree) -> None:
    sheet = sheet_of(tree)
    said = {column: text(table, 0, column=column) for column in (BITS, GROUP, SYMMETRIC, WHY)}
    assert said == {BITS: "4–16", GROUP: "64", SYMMETRIC: "yes", WHY: "3 reasons"}
    assert text(table, 0, column=SIZE).startswith(f"{sum(map(sheet.size, range(7))) / 1e6:.3g} MB")


def test_bits_that_all_have_are_said_once(experts: LayerTable) -> None:
    assert (text(experts, 0, 5, column=BITS), text(experts, 0, 7, column=BITS)) == ("4", "8")
    assert at(experts, 0, 5, column=BITS).data(Qt.ItemDataRole.DecorationRole) is not None
    assert at(experts, 0, column=BITS).data(Qt.ItemDataRole.DecorationRole) is None


def test_a_layer_in_16_bits_has_no_group(table: LayerTable) -> None:
    assert [text(table, 0, V, column=column) for column in (BITS, GROUP, SYMMETRIC)] == ["16", "–", "–"]


def test_loss_increase_is_told_and_summed_where_it_is_known(theme: Theme, tree: ModelTree) -> None:
    layers = tuple(linear.name for linear in tree.of_block(0))
    loss_increase = SensitivityTable("fisher", layers, (LayerScheme(4, 64), LayerScheme(8, 64)), ((0.5, 0.25),) * 7)
    table = LayerTable(theme)
    table.show_sheet(sheet_of(tree, loss_increase=loss_increase))
    assert table.loss_increase_known
    assert text(table, 0, DOWN, column=LOSS_INCREASE).strip() == "0.25"
    assert text(table, 0, column=LOSS_INCREASE).strip() == "2.8"  # five at 4 bits, one at 8, one untouched
    assert text(table, 1, DOWN, column=LOSS_INCREASE).strip() == "–"


def test_the_filter_shows_matches_with_their_blocks(table: LayerTable) -> None:
    table.set_matches(frozenset({7, 8, 21}))
    assert [text(table, row) for row in range(table.rowCount())] == ["Block 1", "Block 3"]
    assert [table.rowCount(at(table, row)) for row in (0, 1)] == [2, 1]
    table.set_matches(None)
    assert table.rowCount() == 13


def test_sums_of_a_filtered_block_are_of_what_is_shown(experts: LayerTable) -> None:
    tree = mixture(2, 4)
    experts.set_matches(frozenset(n for n, linear in enumerate(tree.linears) if ".experts.2." in linear.name))
    assert text(experts, 0, 0) == "mlp.experts.*.gate_proj  ×1"
    assert str(at(experts, 0).data(Qt.ItemDataRole.ToolTipRole)).count("Block 0: 3 layers") == 1


def test_other_bits_of_the_same_layers_move_no_row(qtbot: QtBot, table: LayerTable, tree: ModelTree) -> None:
    with qtbot.waitSignal(table.figures_changed), qtbot.assertNotEmitted(table.modelReset):
        table.show_sheet(sheet_of(tree, replace(MAP, rules=())))
    assert (text(table, 0, DOWN, column=BITS), text(table, 0, column=BITS)) == ("4", "4")


def test_another_model_starts_anew(table: LayerTable) -> None:
    table.set_matches(frozenset({0}))
    table.show_sheet(sheet_of(llama(2)))
    assert table.rowCount() == 3


def test_without_a_model_it_is_empty(table: LayerTable) -> None:
    table.show_sheet(None)
    assert table.rowCount() == 0


def test_an_index_knows_what_it_is_below(experts: LayerTable) -> None:
    layer = experts.index_of(experts.nodes.nodes[0], BITS)
    assert layer.parent().parent() == at(experts, 0)
    assert experts.parent() is None


def test_a_strange_name_is_no_markup(theme: Theme) -> None:
    tree = llama(1, shapes={"<b>bold</b>": (64, 64)})
    table = LayerTable(theme)
    table.show_sheet(sheet_of(tree, BitsMap()))
    assert "&lt;b&gt;" in str(at(table, 0, 0).data(Qt.ItemDataRole.ToolTipRole))
