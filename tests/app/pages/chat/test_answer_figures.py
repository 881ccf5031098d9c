"""What answers cost: from a result, in two parts, and while they come."""

from __future__ import annotations

from typing import Any

import pytest

from app.pages.chat.answer_figures import Figures, Meter, figures_from


def test_all_of_a_result_is_taken() -> None:
    values = {
        "prompt_tokens": 30, "tokens": 12, "cached_tokens": 20, "prompt_tokens_per_second": 210.0, "memory_bytes": 99,
        "dropped_messages": 2, "thinking_seconds": 1.5, "seed": 7, "ended_by": "end", "pieces": ["a"],
    }  # fmt: skip
    found = figures_from(values)
    assert (found.cached_tokens, found.prompt_tokens_per_second, found.memory_bytes) == (20, 210.0, 99)
    assert (found.dropped_messages, found.thinking_seconds, found.seed) == (2, 1.5, 7)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_none_counts_as_none(value: Any) -> None:
    assert figures_from({"tokens": value, "seconds": value}) == Figures()


def test_an_answer_in_two_parts_counts_its_tokens_once() -> None:
    """The second part read the first as its prompt: 30 of prompt, 12 and then 8 of answer."""
    first = Figures(prompt_tokens=30, tokens=12, first_token_seconds=0.5, seconds=2.0)
    second = Figures(prompt_tokens=42, tokens=8, first_token_seconds=0.1, seconds=1.0, ended_by="end")
    both = first.followed_by(second)
    assert (both.prompt_tokens, both.tokens, both.used) == (30, 20, 50)
    assert (both.first_token_seconds, both.seconds, both.ended_by) == (0.5, 3.0, "end")


def test_the_meter_measures_thinking() -> None:
    meter = Meter(began=100.0)
    meter.piece("hm", 101.0, thinking=True)
    meter.piece("hm", 103.0, thinking=True)
    meter.piece("So", 104.0)
    assert meter.figures.thinking_seconds == pytest.approx(2.0)


def test_without_thinking_the_meter_measures_none() -> None:
    meter = Meter(began=100.0)
    meter.piece("So", 104.0)
    assert meter.figures.thinking_seconds == 0.0
