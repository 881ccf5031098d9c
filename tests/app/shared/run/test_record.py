"""The record of a run from events in batches."""

from __future__ import annotations

import math

import pytest

from app.shared.run.record import KEPT_LOGS, STAGES, Batch, RunRecord, StartErrors
from core.events import (
    BlockDone,
    BlockStarted,
    Done,
    EndToEnd,
    Event,
    Failed,
    LayerStarted,
    Log,
    Loss,
    Memory,
    Progress,
    Stage,
    Started,
)  # fmt: skip
from core.recipes import Recipe
from core.spec import JobSpec
from tests.app.recorded_runs import record_of

TUNING = (Stage("prepare"), Stage("calibrate"), Stage("tune"))
BLOCK = BlockStarted(0, 2, "model.layers.0", ("q_proj",))
DONE = BlockDone(0, 2, 0.5, 0.25, 7, 1.5)


def losses(block: int, *values: float, start: int = 1) -> list[Event]:
    return [Loss(block, start + n, 10, value) for n, value in enumerate(values)]


def batch(*events: Event) -> Batch:
    made = Batch()
    made.add(events)
    return made


def test_a_run_begins_with_its_first_event() -> None:
    assert RunRecord().state == "starting"
    assert record_of([Stage("prepare")]).state == "running"


def test_stages_that_are_over_are_kept_in_order() -> None:
    record = record_of(TUNING)
    assert (record.stage, record.stages_done) == ("tune", ("prepare", "calibrate"))


def test_the_end_to_end_stage_belongs_to_runs_that_have_it() -> None:
    assert "end to end" not in record_of(TUNING).stages
    planned = RunRecord(JobSpec("demo", "/out", Recipe(start="gptq", end_to_end=2)))
    assert planned.stages == STAGES
    record = record_of([*TUNING, Stage("end to end"), EndToEnd(1, 2, 0.5), EndToEnd(2, 2, 0.25)])
    assert record.stages == STAGES
    assert record.end_to_end is not None
    assert (record.end_to_end.step, record.end_to_end.kl) == (2, 0.25)
    record.wants_pause = True
    assert record.state == "paused"


def test_every_loss_is_kept_across_batches() -> None:
    record = RunRecord()
    record.apply(batch(*TUNING, BLOCK, *losses(0, 3.0, 1.0)))
    record.apply(batch(*losses(0, 2.0, start=3), *losses(1, 9.0)))
    assert list(record.curves[0].losses) == [3.0, 1.0, 2.0]
    assert list(record.curves[0].iterations) == [1, 2, 3]
    assert list(record.curves[1].losses) == [9.0]


def test_errors_of_a_start_are_kept_by_block_and_layer() -> None:
    record = RunRecord()
    record.apply(batch(*TUNING, BLOCK, LayerStarted(0, "q", 0.2, 0.1)))
    record.apply(batch(LayerStarted(0, "k", 0.4, 0.3), LayerStarted(1, "q", 0.6, 0.5)))
    assert record.starts == {
        0: {"q": StartErrors(0.2, 0.1), "k": StartErrors(0.4, 0.3)},
        1: {"q": StartErrors(0.6, 0.5)},
    }


def test_errors_of_experts_are_averaged_over_batches() -> None:
    record = RunRecord()
    names = [f"mlp.experts.{number}.up_proj" for number in range(3)]
    record.apply(batch(LayerStarted(0, names[0], 0.25, 0.0), LayerStarted(0, names[1], 0.75, 0.25)))
    record.apply(batch(LayerStarted(0, names[2], 0.5, 0.5)))
    assert record.starts == {0: {"mlp.experts.*.up_proj": StartErrors(0.5, 0.25, 3)}}


@pytest.mark.parametrize("block", [-1, 10**9])
def test_errors_of_an_impossible_block_are_left_out(block: int) -> None:
    assert record_of([LayerStarted(block, "q", 0.2, 0.1)]).starts == {}


def test_every_divergence_is_kept_across_batches() -> None:
    record = RunRecord()
    record.apply(batch(Stage("end to end"), EndToEnd(1, 3, 0.5), EndToEnd(2, 3, 0.25)))
    record.apply(batch(EndToEnd(3, 3, 0.375)))
    assert list(record.divergences.iterations) == [1, 2, 3]
    assert list(record.divergences.losses) == [0.5, 0.25, 0.375]


def test_the_lowest_loss_is_known_though_some_are_no_numbers() -> None:
    curve = record_of(losses(0, math.nan, 3.0, 1.0, math.nan, 2.0)).curves[0]
    assert (curve.lowest, curve.lowest_at, len(curve.losses)) == (1.0, 3, 5)


def test_a_finished_block_has_its_figures() -> None:
    record = record_of([*TUNING, BLOCK, DONE])
    figures = record.blocks[0]
    assert (figures.before, figures.after, figures.best, figures.seconds) == (0.5, 0.25, 7, 1.5)
    assert record.total == 2


def test_of_a_flood_of_progress_the_last_counts() -> None:
    progress = [Progress(n / 100, 1.0, n) for n in range(51)]
    record = record_of([Stage("tune"), *progress, Memory(5, 6, 0), Memory(7, 8, 0)])
    assert (record.fraction, record.seconds_high) == (0.5, 50)
    assert record.memory is not None
    assert record.memory.peak == 8


def test_a_download_is_not_the_progress_of_the_run() -> None:
    record = record_of([Stage("prepare"), Progress(0.9, 1.0, 2.0)])
    assert record.fraction == 0.0
    assert record.fetching is not None
    assert record.fetching.fraction == 0.9


def test_the_end_of_a_download_is_not_the_progress_of_the_next_stage() -> None:
    record = record_of([Stage("prepare"), Progress(1.0, 0.0, 0.0), Stage("calibrate")])
    assert (record.fraction, record.fetching) == (0.0, None)


def test_what_is_left_is_not_known_outside_of_tuning() -> None:
    record = RunRecord()
    record.apply(batch(Stage("tune"), Progress(0.96, 1.0, 9.0)))
    record.apply(batch(Stage("write")))
    assert (record.fraction, record.seconds_low, record.seconds_high) == (0.96, -1.0, -1.0)


@pytest.mark.parametrize("fraction", [-1.0, math.nan, 17.0, math.inf])
def test_progress_stays_within_its_bounds(fraction: float) -> None:
    assert 0.0 <= record_of([Stage("tune"), Progress(fraction, -1.0, -1.0)]).fraction <= 1.0


def test_the_newest_log_lines_are_kept_and_all_are_counted() -> None:
    record = RunRecord()
    for start in range(0, 5000, 100):
        record.apply(batch(*(Log("info", str(n)) for n in range(start, start + 100))))
    assert (len(record.logs), record.logged) == (KEPT_LOGS, 5000)
    assert (record.logs[0].message, record.logs[-1].message) == ("3000", "4999")


def test_a_batch_of_a_flood_stays_small() -> None:
    made = batch(*(Log("info", "x") for _ in range(100_000)))
    assert len(made.logs) < 1000
    assert (made.logged, made.count) == (100_000, 100_000)


def test_a_pause_begins_at_the_block_boundary() -> None:
    record = record_of([*TUNING, BLOCK])
    record.wants_pause = True
    states = [record.state]
    record.apply(batch(DONE))
    states.append(record.state)
    record.wants_pause = False
    states.append(record.state)
    assert states == ["pausing", "paused", "running"]


def test_a_pause_that_came_too_late_waits_for_the_next_boundary() -> None:
    record = record_of([*TUNING, BLOCK, DONE])
    record.wants_pause = True
    record.apply(batch(BlockStarted(1, 2, "model.layers.1", ())))
    assert record.state == "pausing"


def test_after_the_last_block_there_is_no_pause() -> None:
    record = record_of([*TUNING, BlockDone(1, 2, 1.0, 0.5, 1, 1.0)])
    record.wants_pause = True
    assert record.state == "pausing"
    record.apply(batch(Stage("write")))
    assert not record.can_pause


def test_a_stop_wins_over_a_pause() -> None:
    record = record_of([*TUNING, BLOCK])
    record.wants_pause = record.stopping = True
    assert record.state == "stopping"
    assert not record.can_pause


@pytest.mark.parametrize(
    ("last", "state"),
    [
        (Done("out", 1.0, {"a": 1}), "done"),
        (Failed("bad-input", "m", "h", "prepare", True), "failed"),
        (Failed("cancelled", "m", "", "", False), "cancelled"),
        (Failed("child-died", "m", "", "", False), "died"),
    ],
)
def test_the_last_event_is_the_state(last: Done | Failed, state: str) -> None:
    record = record_of([*TUNING, BLOCK, last])
    assert (record.state, record.active) == (state, False)


def test_the_report_is_that_of_done() -> None:
    assert record_of([Done("out", 1.0, {"a": 1})]).report == {"a": 1}
    assert record_of([Stage("tune")]).report == {}


def test_tokens_of_a_step_are_those_that_the_run_settled_for() -> None:
    settings = {"recipe": {"seqlen": 256, "batch_size": 8}, "micro_batch": 2, "accumulate": 4}
    assert record_of([Started("m", 1, 1, 1, "cpu", "float32", 1, settings)]).tokens_per_step == 2048
    assert record_of([Started("m", 1, 1, 1, "cpu", "float32", 1, {})]).tokens_per_step == 0


def test_an_end_to_end_step_has_tokens_of_its_own() -> None:
    record = RunRecord(JobSpec("m", "o", Recipe(samples=8, seqlen=256, batch_size=8)))
    batch = Batch()
    batch.add([Stage("end to end")])
    record.apply(batch)
    assert record.tokens_per_step == 512


def test_numbers_that_nothing_can_hold_do_no_harm() -> None:
    odd = [Loss(-1, 1, 1, 1.0), Loss(10**12, 1, 1, 1.0), Loss(0, 10**400, 1, 1.0)]
    record = record_of([*odd, Loss(0, 1, 10**400, 1.0)])
    assert list(record.curves) == [0]
    assert record_of([BlockStarted(0, 10**12, "", ())]).total < 10**6
