"""The table of possible conversions: order, headings, and texts of the cells."""

from __future__ import annotations

import pytest
from PySide6.QtCore import QAbstractItemModel, Qt
from PySide6.QtTest import QAbstractItemModelTester
from pytestqt.qtbot import QtBot

from app.pages.convert.conversion_table import FORMAT, RESULT, SIZE, WHY, ConversionTable
from app.theme import Theme
from core.conversion.survey import ConversionOption
from tests.app.pages.convert.possible_rows import ROWS


@pytest.fixture
def table(qtbot: QtBot, theme: Theme) -> ConversionTable:
    made = ConversionTable(theme)
    made.show_rows(ROWS)
    return made


def text(table: QAbstractItemModel, row: int, column: int) -> str:
    return str(table.index(row, column).data() or "")


def test_qt_finds_nothing_wrong_with_the_model(table: ConversionTable) -> None:
    QAbstractItemModelTester(table, QAbstractItemModelTester.FailureReportingMode.Fatal)
    table.show_rows(())
    table.show_rows(ROWS[:2])


def test_what_is_exact_comes_first_in_the_order_of_the_families(table: ConversionTable) -> None:
    rows = [table.row_at(number) for number in range(table.rowCount())]
    names = [row.format if row is not None else "" for row in rows]
    assert names == ["", "auto_round", "auto_gptq", "gguf", "", "bf16", "", "auto_awq"]


def test_headings_count_and_cannot_be_chosen(table: ConversionTable) -> None:
    assert table.headings() == [0, 4, 6]
    assert text(table, 0, FORMAT) == "Exact: the weights do not change (3)"
    assert table.flags(table.index(0, FORMAT)) == Qt.ItemFlag.NoItemFlags


def test_a_row_says_what_why_and_how_large(table: ConversionTable) -> None:
    assert [text(table, 5, column) for column in (FORMAT, RESULT, SIZE, WHY)] == [
        "Not quantized, bfloat16", "inexact", "269 MB", "14 bits do not fit into 8.",
    ]  # fmt: skip


def test_where_there_is_no_reason_it_says_what_it_is_for(table: ConversionTable) -> None:
    assert "vLLM" in text(table, 2, WHY)


def test_what_is_not_possible_has_no_size(table: ConversionTable) -> None:
    assert text(table, 7, SIZE) == "\N{EN DASH}"


def test_a_screen_reader_hears_the_whole_row(table: ConversionTable) -> None:
    heard = table.index(3, FORMAT).data(Qt.ItemDataRole.AccessibleTextRole)
    assert heard == "GGUF, exact, 119 MB, 30 layers take 4.5 bits."


def test_reasons_are_shown_as_they_are(table: ConversionTable) -> None:
    table.show_rows([ConversionOption("gguf", "no", "<b>1 < 2</b>")])
    assert "&lt;b&gt;1 &lt; 2" in table.index(1, WHY).data(Qt.ItemDataRole.ToolTipRole)


def test_the_color_goes_with_the_verdict(table: ConversionTable, theme: Theme) -> None:
    colors = [table.index(row, RESULT).data(Qt.ItemDataRole.ForegroundRole) for row in (1, 5, 7)]
    assert colors == [theme.color("good"), theme.color("warning"), theme.color("muted")]


@pytest.mark.parametrize(("kind", "first"), [("AutoRound", "auto_gptq"), ("GPTQ", "auto_round"), ("", "auto_round")])
def test_the_first_is_an_exact_one_of_another_kind(table: ConversionTable, kind: str, first: str) -> None:
    row = table.row_at(table.first(kind))
    assert row is not None
    assert row.format == first


def test_an_empty_table_has_no_first(table: ConversionTable) -> None:
    table.show_rows(())
    assert table.first() == -1
