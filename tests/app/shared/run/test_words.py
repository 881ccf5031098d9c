"""Texts about a run."""

from __future__ import annotations

import pytest

from app.shared.run import words as run_words
from app.shared.run.record import RunRecord
from core.bitsmap import BitsMap, Rule
from core.events import BlockDone, BlockStarted, Done, EndToEnd, Event, Failed, LayerStarted, Loss, Progress, Stage
from core.jobs.worker import ORPHANED
from core.spec import JobSpec
from tests.app.recorded_runs import batch_of, record_of

SPEC = JobSpec("/models/Tiny", "/out")
TUNING: tuple[Event, ...] = (Stage("prepare"), Stage("tune"), BlockStarted(13, 30, "model.layers.13", ()))


def test_the_title_names_model_and_bits() -> None:
    assert run_words.title_of(RunRecord(SPEC)) == "Tiny to 4 bits"


def test_a_map_with_rules_has_mixed_bits() -> None:
    spec = JobSpec("/models/Tiny", "/out", bits_map=BitsMap(rules=(Rule("*.down_proj", bits=8),)))
    assert run_words.title_of(RunRecord(spec)) == "Tiny to mixed bits"


def test_blocks_are_counted_from_one() -> None:
    assert run_words.doing(record_of(TUNING)) == "Tuning block 14 of 30"


def test_an_end_to_end_step_shows_its_divergence() -> None:
    record = record_of([*TUNING, Stage("end to end"), EndToEnd(3, 60, 0.25)])
    assert run_words.doing(record) == "Tuning all scales and norms together: step 3 of 60, KL divergence 0.25"
    record.wants_pause = True
    assert run_words.doing(record) == "Paused between two steps"


def test_a_download_shows_its_progress() -> None:
    assert run_words.doing(record_of([Stage("prepare"), Progress(0.43, 1.0, 2.0)])) == "Downloading the model, 43 %"


def test_a_requested_pause_is_added_to_the_activity() -> None:
    record = record_of(TUNING)
    record.wants_pause = True
    assert run_words.doing(record) == "Tuning block 14 of 30; pausing after this block"


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (180.0, 300.0, "3 to 5 min left"),
        (-1.0, -1.0, ""),
        (float("nan"), 1e300, ""),
        (0.0, 10.0, "a few seconds left"),
    ],
)
def test_what_is_left_is_a_range_in_words(low: float, high: float, words: str) -> None:
    assert run_words.left(record_of([*TUNING, Progress(0.5, low, high)])) == words


def test_a_paused_run_has_no_time_left() -> None:
    record = record_of([*TUNING, BlockDone(13, 30, 1.0, 0.5, 3, 1.0), Progress(0.5, 100.0, 200.0)])
    record.wants_pause = True
    assert run_words.left(record) == ""


def test_the_live_curve_shows_the_lowest_loss_so_far() -> None:
    record = record_of([*TUNING, Loss(13, 1, 200, 0.5), Loss(13, 2, 200, 0.147), Loss(13, 3, 200, 0.2)])
    assert run_words.curve_words(record, 13) == "Lowest loss so far: 0.147 at iteration 2 of 200"


def test_a_finished_block_shows_its_best_iteration() -> None:
    record = record_of([*TUNING, Loss(13, 1, 200, 0.5), BlockDone(13, 30, 1.0, 0.5, 163, 1.0)])
    assert run_words.curve_words(record, 13) == "Best: iteration 163"


def test_the_start_of_a_block_is_named_until_its_first_step() -> None:
    record = record_of([*TUNING, LayerStarted(13, "q", 0.4, 0.1), LayerStarted(13, "k", 0.2, 0.1)])
    assert run_words.doing(record) == "Block 14 of 30: integers and scales without gradients"
    assert run_words.start_words(record, 13) == "Mean of the layers: 30 % \N{RIGHTWARDS ARROW} 10 %"
    record.apply(batch_of([Loss(13, 1, 200, 0.5)]))
    assert run_words.doing(record) == "Tuning block 14 of 30"


def test_the_start_may_be_what_is_kept() -> None:
    events = [*TUNING, LayerStarted(13, "q", 0.4, 0.1), BlockDone(13, 30, 1.0, 0.5, 0, 1.0)]
    assert run_words.curve_words(record_of(events), 13) == "The start, not tuned"
    steps = [*events[:-1], Loss(13, 1, 200, 0.5), events[-1]]
    assert run_words.curve_words(record_of(steps), 13) == "The start was kept; no iteration was better"


def test_the_end_to_end_stage_has_a_result_on_held_out_text() -> None:
    record = record_of([Stage("end to end"), EndToEnd(3, 60, 0.25)])
    assert run_words.stage_words(record) == "Step 3 of 60"
    report = {"end_to_end": {"heldout_kl_before": 1.5, "heldout_kl_after": 1.25}}
    record.apply(batch_of([Done("/out", 1.0, report)]))
    assert run_words.stage_words(record) == "On held-out text: 1.5 \N{RIGHTWARDS ARROW} 1.25"


def test_plain_rounding_may_be_what_is_kept() -> None:
    record = record_of([*TUNING, Loss(13, 1, 200, 0.5), BlockDone(13, 30, 1.0, 1.0, 0, 1.0)])
    assert run_words.curve_words(record, 13) == "Plain rounding was kept; no iteration was better"


def ended(*events: Event, code: str = "internal", message: str = "Oh.", early: bool = False) -> run_words.Ending:
    found = run_words.ending(record_of([*events, Failed(code, message, "Do this.", "", early)]))
    assert found is not None
    return found


def test_an_active_run_has_no_ending() -> None:
    assert run_words.ending(record_of(TUNING)) is None


def test_a_failure_says_where_it_was() -> None:
    found = ended(*TUNING)
    assert (found.headline, found.message, found.hint) == ("The run failed at block 14 of 30", "Oh.", "Do this.")


def test_a_wrong_request_could_not_start() -> None:
    assert ended(Stage("prepare"), early=True).headline == "The run could not start"


def test_a_failure_of_a_late_stage_names_it() -> None:
    assert ended(*TUNING, Stage("write")).headline == "The run failed while writing the files"


def test_a_death_is_not_called_a_failure() -> None:
    assert ended(*TUNING, code="child-died").headline == "The run ended unexpectedly at block 14 of 30"


def test_a_cancelled_run_left_nothing_behind() -> None:
    found = ended(*TUNING, code="cancelled")
    assert (found.headline, found.role) == ("Cancelled", "muted")
    assert "at block 14 of 30. All its files were removed." in found.message


def test_a_run_stopped_with_its_window_has_its_own_ending() -> None:
    assert ended(*TUNING, code="cancelled", message=ORPHANED).headline == "Stopped with the window"


def test_facts_that_are_not_known_are_left_out() -> None:
    assert run_words.facts(RunRecord(SPEC)) == []
