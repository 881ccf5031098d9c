"""Tests of events: round trips through JSON lines, and invalid lines."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import events
from core.events import Done, Event, Log, Loss, Memory, from_line, to_line

KINDS = [cls for cls in vars(events).values() if isinstance(cls, type) and issubclass(cls, Event) and cls is not Event]
TEXT = st.text(alphabet=st.characters(codec="utf-8"))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "str": TEXT,
    "int": st.integers(-(2**62), 2**62),
    "float": st.floats(allow_nan=False, allow_infinity=False),
    "bool": st.booleans(),
    "tuple[str, ...]": st.lists(TEXT, max_size=3).map(tuple),
    "dict[str, Any]": st.dictionaries(TEXT, st.one_of(TEXT, st.integers(), st.lists(st.integers())), max_size=3),
}


def any_event() -> st.SearchStrategy[Event]:
    return st.one_of([st.builds(cls, **{f.name: VALUES[str(f.type)] for f in fields(cls)}) for cls in KINDS])


@given(any_event())
def test_every_event_comes_back_from_its_line(event: Event) -> None:
    line = to_line(event)
    assert line.isascii()
    assert "\n" not in line
    assert from_line(line) == event


@given(st.one_of(TEXT, st.binary().map(lambda data: data.decode("utf-8", "replace"))))
def test_any_other_line_becomes_a_log(line: str) -> None:
    event = from_line(line)
    assert isinstance(event, Log)
    assert event.message == line.strip()[:2000]


@pytest.mark.parametrize(
    "line",
    [
        '{"event": "Loss", "block": "x", "iteration": 1, "iterations": 1, "loss": 1.0}',
        '{"event": "Loss", "block": 1}',
        '{"event": "Unheard", "block": 1}',
        '{"event": ["Loss"]}',
        '{"event": "Done", "output": "a", "seconds": 1, "report": []}',
        '{"event": "Stage", "name": null}',
        "[1, 2]",
        "null",
        "[" * 100_000,
    ],
)
def test_values_of_the_wrong_kind_do_not_become_an_event(line: str) -> None:
    assert isinstance(from_line(line), Log)


def test_keys_of_a_newer_version_are_passed_over() -> None:
    assert from_line('{"event": "Stage", "time": 1.0, "name": "tune", "color": "red"}') == events.Stage(
        "tune", time=1.0
    )


def test_text_of_an_older_version_is_text() -> None:
    assert from_line('{"event": "Token", "time": 1.0, "text": "hi"}') == events.Token("hi", "text", time=1.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_is_null_for_programs_and_nan_for_us(value: float) -> None:
    line = to_line(Loss(0, 1, 2, value))
    assert json.loads(line, parse_constant=lambda name: pytest.fail(name))["loss"] is None
    back = from_line(line)
    assert isinstance(back, Loss)
    assert math.isnan(back.loss)


def test_a_report_with_nan_inside_is_still_strict_json() -> None:
    line = to_line(Done("out", 1.0, {"blocks": [{"loss": math.nan}], "perplexity": 3.0}))
    report = json.loads(line, parse_constant=lambda name: pytest.fail(name))["report"]
    assert report == {"blocks": [{"loss": None}], "perplexity": 3.0}


def test_lone_surrogates_of_a_file_name_survive() -> None:
    event = Log("info", "/data/\udcff")
    assert from_line(to_line(event)) == event


def test_an_event_knows_when_it_was_made() -> None:
    assert Memory(1, 2, 3).time > 1.7e9
