"""Values of the job bar and the main button, from choices and events."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pytestqt.qtbot import QtBot

from app.frame.job_summary import ARROW, NOTHING, facts_of, facts_of_run, primary_of, stage_of
from app.shared.draft import Draft
from app.shared.models.opened import OpenedModel
from app.shared.run.record import RunRecord
from core.bitsmap import BitsMap, Rule
from core.events import BlockDone, BlockStarted, Done, Progress, Stage, Started
from core.inference.machine import Device, Machine
from core.spec import JobSpec
from core.wording import human
from tests.app.recorded_runs import record_of
from tests.core.paper_model import seeing

CPU = Device("cpu", "cpu", "Some Processor", 8_000_000_000, 0, details={"physical_cores": 2})
GPU = Device("cuda:0", "cuda", "Some Card", 8_000_000_000, 0)
TUNING = (
    Started("m", 30, 210, 1, "cpu", "float32", 2, {}),
    Stage("tune"),
    BlockStarted(13, 30, "model.layers.13", ("q", "k")),
    Progress(0.47, 170, 250),
)


@pytest.fixture
def draft(qtbot: QtBot, opened: OpenedModel) -> Draft:
    made = Draft()
    made.choose(model=opened)
    return made


def test_without_a_model_there_are_no_figures(qtbot: QtBot) -> None:
    facts = facts_of(Draft())
    assert (facts.model.text, facts.size.text, facts.bits.text) == (NOTHING, NOTHING, NOTHING)


def test_a_model_shows_its_size_now_and_after(draft: Draft) -> None:
    facts = facts_of(draft)
    before, after = facts.size.text.split(f" {ARROW} ")
    assert facts.model.text == "tiny"
    assert before.endswith("kB")
    assert after.endswith("kB")
    assert 4.0 < float(facts.bits.text) < 5.0


def test_exact_bytes_are_in_the_tooltip(draft: Draft) -> None:
    assert draft.size is not None
    assert f"{draft.size.total:,} bytes after" in facts_of(draft).size.more


def test_the_size_of_quantized_weights_is_that_of_their_files(draft: Draft, opened: OpenedModel) -> None:
    draft.choose(model=replace(opened, file_bytes=25_000))
    facts = facts_of(draft)
    assert facts.size.text.startswith(f"{human(25_000)} {ARROW} ")
    assert facts.size.more.startswith("25,000 bytes before")


def test_a_map_that_does_not_fit_leaves_the_size_now(draft: Draft) -> None:
    draft.choose(bits_map=BitsMap(layers=(Rule("no.such.layer", bits=2),)))
    facts = facts_of(draft)
    assert (ARROW in facts.size.text, facts.size.text.endswith("kB"), facts.bits.text) == (False, True, NOTHING)


def test_the_device_is_named_as_people_know_it(draft: Draft) -> None:
    draft.set_machine(Machine((CPU, GPU), {}, "cpu"))
    assert facts_of(draft).device.text == "CPU, 2 cores"
    draft.choose(device="cuda:0")
    assert facts_of(draft).device.text == "Some Card"


def test_a_run_from_before_shows_what_its_spec_says() -> None:
    spec = JobSpec("Qwen/Qwen3-0.6B", "/out", bits_map=BitsMap(rules=(Rule("*down*", bits=8),)))
    facts = facts_of_run(RunRecord(spec), Machine())
    assert (facts.model.text, facts.bits.text, facts.size.more) == ("Qwen3-0.6B", "4, mixed", "/out")
    assert facts.device.text == "auto"


def test_a_run_from_before_shows_the_device_once_it_has_told() -> None:
    assert facts_of_run(record_of(TUNING, JobSpec("demo", "/out")), Machine()).device.text == "CPU"


def test_a_run_from_before_shows_its_device_as_people_know_it() -> None:
    record = record_of(TUNING, JobSpec("demo", "/out", device="cuda:0"))  # which was not there, say
    assert facts_of_run(record, Machine((CPU, GPU), {}, "cuda:0")).device.text == "CPU, 2 cores"


def test_a_run_that_has_not_told_its_device_will_use_the_fastest() -> None:
    facts = facts_of_run(RunRecord(JobSpec("demo", "/out")), Machine((CPU, GPU), {}, "cuda:0"))
    assert facts.device.text == "Some Card"


def test_a_run_from_before_shows_the_sizes_that_it_told() -> None:
    told = {"source_bytes": 269_000_000, "planned_bytes": {"auto_round": 117_500_000, "auto_gptq": 118_000_000}}
    started = Started("m", 30, 210, 1, "cpu", "float32", 2, told)
    facts = facts_of_run(record_of([started], JobSpec("demo", "/out")), Machine())
    assert facts.size.text == f"269 MB {ARROW} 118 MB"


@pytest.mark.parametrize("told", [{}, {"source_bytes": "many", "planned_bytes": [1]}])
def test_a_run_of_another_version_may_tell_no_sizes(told: dict[str, Any]) -> None:
    started = Started("m", 30, 210, 1, "cpu", "float32", 2, told)
    assert facts_of_run(record_of([started], JobSpec("demo", "/out")), Machine()).size.text == NOTHING


def test_the_reason_is_shown_beside_the_button() -> None:
    primary = primary_of(None, False, "Select a model", False)
    assert (primary.text, primary.action, primary.reason) == ("Quantize", "", "Select a model")


def test_complete_choices_can_be_quantized() -> None:
    assert primary_of(None, False, "", False).action == "start"


def test_a_run_can_be_paused_and_cancelled_and_shows_how_far_it_is() -> None:
    primary = primary_of(record_of(TUNING), True, "", False)
    assert (primary.text, primary.action, primary.can_cancel, primary.fraction) == ("Pause", "pause", True, 0.47)
    assert primary.remaining == "3 to 4 min left"


def test_a_pause_that_is_still_to_come_can_be_taken_back() -> None:
    record = record_of(TUNING)
    record.wants_pause = True
    primary = primary_of(record, True, "", False)
    assert (primary.text, primary.action, primary.remaining) == ("Resume", "resume", "pausing")


def test_a_paused_run_can_be_resumed() -> None:
    record = record_of((*TUNING, BlockDone(13, 30, 1.0, 0.5, 3, 2.0)))
    record.wants_pause = True
    assert primary_of(record, True, "", False).action == "resume"
    assert stage_of(record, True).startswith("Paused")


def test_a_stopping_run_has_no_actions() -> None:
    record = record_of(TUNING)
    record.stopping = True
    primary = primary_of(record, True, "", False)
    assert (primary.action, primary.can_cancel) == ("", False)


def test_after_the_last_block_there_is_nothing_to_pause() -> None:
    primary = primary_of(record_of((*TUNING, Stage("write"))), True, "", False)
    assert (primary.action, bool(primary.reason), primary.can_cancel) == ("", True, True)


def test_a_finished_run_offers_the_chat() -> None:
    record = record_of((*TUNING, Done("/out", 3.0, {})))
    primary = primary_of(record, False, "", True)
    assert (primary.text, primary.action, primary.fraction) == ("Chat with model", "chat", None)


@pytest.mark.parametrize(
    ("record", "active", "said"),
    [
        (None, False, ""),
        (record_of(TUNING), False, ""),
        (record_of(TUNING), True, "Tuning block 14 of 30, 3 to 4 min left"),
        (record_of((*TUNING, Stage("verify"))), True, "Checking the written files"),
        (RunRecord(), True, "Starting"),
    ],
)
def test_the_status_line_says_what_a_run_does(record: RunRecord | None, active: bool, said: str) -> None:
    assert stage_of(record, active) == said


def test_the_size_tells_what_is_not_quantized(draft: Draft, opened: OpenedModel) -> None:
    draft.choose(model=replace(opened, tree=seeing(2)))
    assert "Besides the language model: vision tower, projector, 10.8 MB before" in facts_of(draft).size.more
