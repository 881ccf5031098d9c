"""Statistics of answers: speeds, and answers in two parts."""

from __future__ import annotations

from core.inference.generation.reply import Statistics


def test_an_answer_in_two_parts_counts_its_tokens_once() -> None:
    """The prompt of the second part contains the first: 30 tokens of prompt, then 12 and 8 of answer."""
    first = Statistics(prompt_tokens=30, tokens=12, first_token_seconds=0.5, seconds=2.0)
    second = Statistics(prompt_tokens=42, tokens=8, first_token_seconds=0.1, seconds=1.0, ended_by="end")
    both = first.followed_by(second)
    assert (both.prompt_tokens, both.tokens, both.used) == (30, 20, 50)
    assert (both.first_token_seconds, both.seconds, both.ended_by) == (0.5, 3.0, "end")


def test_speeds_leave_out_the_first_token_and_the_cache() -> None:
    found = Statistics(
        prompt_tokens=30, cached_tokens=10, prompt_seconds=0.5, tokens=5, first_token_seconds=0.5, seconds=2.5
    )
    found.compute_speeds()
    assert (found.prompt_tokens_per_second, found.tokens_per_second) == (40.0, 2.0)


def test_an_answer_of_one_token_has_no_speed() -> None:
    found = Statistics(tokens=1, first_token_seconds=1.0, seconds=1.0)
    found.compute_speeds()
    assert (found.prompt_tokens_per_second, found.tokens_per_second) == (0.0, 0.0)
