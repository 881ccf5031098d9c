"""Calls for possible conversions and for a conversion, with a scripted service."""

from __future__ import annotations

from typing import Any

import pytest
from pytestqt.qtbot import QtBot

from app.pages.convert.conversion import Conversion, Source
from core.conversion.survey import SourceSummary
from core.errors import BadInput
from core.events import Progress
from core.service.messages import ConvertModel, SurveyConversions
from tests.app.pages.convert.possible_rows import ROWS, SOURCE, SURVEY, converted
from tests.app.recorded_calls import RecordedCalls


@pytest.fixture
def conversion(qtbot: QtBot, calls: RecordedCalls) -> Conversion:
    service: Any = calls
    return Conversion(service)


@pytest.fixture
def ready(conversion: Conversion, calls: RecordedCalls) -> Conversion:
    """After a look at a model."""
    conversion.look("/m/small")
    calls.started[0].on_success(SURVEY)
    return conversion


def test_a_look_asks_the_service_and_keeps_the_rows(ready: Conversion, calls: RecordedCalls) -> None:
    assert calls.started[0].request == SurveyConversions("/m/small")
    assert (ready.state, ready.busy, len(ready.rows)) == ("ready", False, len(ROWS))


def test_another_look_overtakes_the_first(conversion: Conversion, calls: RecordedCalls) -> None:
    conversion.look("/m/one")
    conversion.look("/m/two")
    assert calls.started[0].stopped
    calls.started[0].on_success(SURVEY)
    assert (conversion.state, conversion.rows) == ("looking", ())


def test_a_look_that_fails_leaves_the_reason(conversion: Conversion, calls: RecordedCalls) -> None:
    failures: list[tuple[object, bool]] = []
    conversion.failed.connect(lambda error, converting: failures.append((error, converting)))
    conversion.look("/m/small")
    error = BadInput("It cannot be read.", "Choose another.")
    calls.started[0].on_failure(error)
    assert (conversion.state, conversion.problem, failures) == ("refused", error, [(error, False)])


def test_a_look_that_is_stopped_forgets_the_model(conversion: Conversion) -> None:
    conversion.look("/m/small")
    conversion.stop()
    assert (conversion.state, conversion.source, conversion.busy) == ("empty", None, False)


def test_a_conversion_asks_for_what_was_chosen(ready: Conversion, calls: RecordedCalls) -> None:
    ready.convert("bf16", "/m/out", inexact=True)
    assert calls.started[1].request == ConvertModel("/m/small", "/m/out", "bf16", inexact=True)
    assert (ready.state, ready.target) == ("converting", "bf16")


def test_one_conversion_at_a_time(ready: Conversion, calls: RecordedCalls) -> None:
    ready.convert("gguf", "/m/out", inexact=False)
    ready.convert("gguf", "/m/other", inexact=False)
    assert len(calls.of(ConvertModel)) == 1


def test_what_it_reports_is_handed_on(ready: Conversion, calls: RecordedCalls, qtbot: QtBot) -> None:
    ready.convert("gguf", "/m/out", inexact=False)
    with qtbot.waitSignal(ready.progressed):
        calls.started[1].on_event(Progress(0.5, -1, -1))


def test_a_result_is_kept_and_can_be_left(ready: Conversion, calls: RecordedCalls) -> None:
    ready.convert("gguf", "/m/out", inexact=False)
    calls.started[1].on_success(converted("/m/out"))
    assert (ready.state, ready.made) == ("done", converted("/m/out"))
    ready.again()
    assert ready.state == "ready"


def test_after_a_failure_the_table_is_there_again(ready: Conversion, calls: RecordedCalls) -> None:
    ready.convert("gguf", "/m/out", inexact=False)
    calls.started[1].on_failure(BadInput("No.", ""))
    assert (ready.state, ready.problem, len(ready.rows)) == ("ready", None, len(ROWS))


def test_after_a_stop_nothing_more_is_heard(ready: Conversion, calls: RecordedCalls) -> None:
    ready.convert("gguf", "/m/out", inexact=False)
    ready.stop()
    calls.started[1].on_success(converted("/m/out"))
    assert (ready.state, calls.started[1].stopped) == ("ready", True)


# --- the source ---


def test_a_source_is_told_in_a_line() -> None:
    assert Source("/m/small", SOURCE).words == "AutoRound, 210 layers W4 g64 sym, 116 MB"


def test_a_source_that_is_not_quantized_says_so() -> None:
    summary = SourceSummary("small", kind="BF16", nbytes=269_000_000)
    assert Source("/m/small", summary).words == "BF16, not quantized, 269 MB"


def test_a_source_that_is_unpacked_names_its_format() -> None:
    summary = SourceSummary("small", kind="MXFP4", nbytes=713_000, unpacked=True)
    assert Source("/m/small", summary).words == "MXFP4, unpacked to 16 bits, 713 kB"


def test_a_folder_that_is_called_as_its_format_has_the_name_of_the_run() -> None:
    assert Source("/m/small-4bit/auto_round", SourceSummary("auto_round")).label == "small-4bit"


def test_a_source_that_nothing_is_known_of_has_its_name() -> None:
    assert (Source("/m/small").label, Source("/m/small").words) == ("small", "")
