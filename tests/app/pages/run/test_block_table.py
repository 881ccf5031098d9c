"""Blocks as rows, and the common scale of their bars."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from pytestqt.modeltest import ModelTester
from pytestqt.qtbot import QtBot

from app.pages.run.block_table import ROW, BlockRow, BlockTable, scale_of
from app.shared.run.record import Batch, BlockFigures, RunRecord
from core.events import BlockDone, BlockStarted, Loss, Stage
from tests.app.recorded_runs import record_of

EVENTS = (
    Stage("tune"),
    BlockStarted(0, 3, "model.layers.0", ()),
    BlockDone(0, 3, 1e-2, 1e-3, 5, 1.0),
    BlockStarted(1, 3, "model.layers.1", ()),
    Loss(1, 5, 10, 0.5),
)


@pytest.fixture
def record() -> RunRecord:
    return record_of(EVENTS)


@pytest.fixture
def table(qapp: object, record: RunRecord) -> BlockTable:
    made = BlockTable()
    made.show(record)
    return made


def row(table: BlockTable, number: int) -> BlockRow:
    found = table.index(number).data(ROW)
    assert isinstance(found, BlockRow)
    return found


def test_the_model_keeps_qts_rules(table: BlockTable, qtmodeltester: ModelTester) -> None:
    qtmodeltester.check(table)


def test_there_is_a_row_for_each_block_from_the_start(table: BlockTable) -> None:
    assert table.rowCount() == 3
    assert [row(table, number).text for number in range(3)] == ["0.01 \N{RIGHTWARDS ARROW} 0.001", "tuning", ""]


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [(0.0245, 0.0123, "0.0245 → 0.0123"), (0.00367, 3.74e-5, "3.7e-3 → 3.7e-5"), (1234.5, 2.5e7, "1,234 → 2.5e7")],
)
def test_figures_are_short_enough_for_the_list(qapp: object, before: float, after: float, text: str) -> None:
    made = BlockTable()
    made.show(
        record_of([Stage("tune"), BlockStarted(0, 1, "model.layers.0", ()), BlockDone(0, 1, before, after, 5, 1.0)])
    )
    assert row(made, 0).text == text


def test_the_block_that_is_tuned_tells_how_far_it_is(table: BlockTable) -> None:
    assert (table.current, row(table, 1).share) == (1, 0.5)


def test_bars_lie_on_one_logarithmic_scale(table: BlockTable) -> None:
    found = row(table, 0)
    assert found.before == 1.0
    assert found.after == pytest.approx(1 / 3)  # a decade less, on a scale of one and a half


def test_a_screen_reader_hears_sentences(table: BlockTable) -> None:
    words = [table.index(number).data(Qt.ItemDataRole.AccessibleTextRole) for number in range(3)]
    first = "Block 1, loss 0.01 with plain rounding, 0.001 as quantized"
    assert words == [first, "Block 2, tuning", "Block 3, waiting"]


def test_only_rows_that_changed_say_so(table: BlockTable, record: RunRecord, qtbot: QtBot) -> None:
    batch = Batch()
    batch.add([Loss(1, 6, 10, 0.5)])
    record.apply(batch)
    with qtbot.waitSignal(table.dataChanged) as blocker:
        table.show(record)
    assert blocker.args is not None
    assert (blocker.args[0].row(), blocker.args[1].row()) == (1, 1)


def test_nothing_new_says_nothing(table: BlockTable, record: RunRecord, qtbot: QtBot) -> None:
    with qtbot.assertNotEmitted(table.dataChanged), qtbot.assertNotEmitted(table.modelReset):
        table.show(record)


@pytest.mark.parametrize("loss", [0.0, float("nan"), float("inf"), -1.0])
def test_a_loss_that_no_scale_holds_still_has_a_row(qapp: object, loss: float) -> None:
    table = BlockTable()
    table.show(record_of([BlockStarted(0, 1, "", ()), BlockDone(0, 1, loss, loss, 0, 1.0)]))
    assert 0.0 <= row(table, 0).before <= 1.0


def test_the_scale_holds_all_losses_and_leaves_the_smallest_a_bar() -> None:
    low, high = scale_of([BlockFigures(30.0, 2e-5, 1, 1.0)])
    assert low <= -4.7 - 0.5
    assert high >= 1.48
