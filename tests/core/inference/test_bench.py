"""Tests of the speed measurement on a runner that records the tokens it processes."""

from __future__ import annotations

import pytest

from core.errors import BadInput, Cancelled
from core.events import Event, Progress
from core.inference.bench import bench
from tests.core.inference.scripted_runners import CountingRunner


def test_each_prompt_is_processed_in_one_call() -> None:
    runner = CountingRunner()
    bench(runner, (8, 20), tokens=3)
    assert [len(ids) for ids in runner.read if len(ids) in (8, 20)] == [8, 20]


def test_the_requested_number_of_tokens_is_generated() -> None:
    runner = CountingRunner()
    bench(runner, (20,), tokens=5)
    after = runner.read[[len(ids) for ids in runner.read].index(20) + 1 :]
    assert [len(ids) for ids in after] == [1] * 5


def test_the_most_likely_token_is_the_next_input() -> None:
    runner = CountingRunner()
    bench(runner, (20,), tokens=2)
    last = runner.read[-3][-1]
    assert runner.read[-2:] == [[(last + 1) % 50], [(last + 2) % 50]]


def test_rows_are_in_the_order_of_their_lengths() -> None:
    assert [row.prompt_tokens for row in bench(CountingRunner(), (20, 8, 8), tokens=1)] == [8, 20]


def test_prompts_that_do_not_fit_are_skipped() -> None:
    assert [row.prompt_tokens for row in bench(CountingRunner(context=32), (8, 31, 512), tokens=4)] == [8]


def test_an_error_is_raised_if_no_prompt_fits() -> None:
    with pytest.raises(BadInput, match="context of 16"):
        bench(CountingRunner(context=16), (512,))


def test_prefill_speed_follows_from_the_time_to_the_first_token() -> None:
    (row,) = bench(CountingRunner(), (20,), tokens=1)
    assert row.prefill_tokens_per_second * row.first_token_seconds == pytest.approx(20)


def test_memory_is_that_of_the_runner() -> None:
    assert bench(CountingRunner(), (8,), tokens=1)[0].memory_bytes == 1000


def test_the_bandwidth_share_is_the_rate_of_weight_bytes_over_the_bandwidth() -> None:
    (row,) = bench(CountingRunner(), (8,), tokens=2, step_bytes=500, bandwidth=2000.0)
    assert row.bandwidth_share == pytest.approx(row.decode_tokens_per_second / 4)


def test_without_a_bandwidth_there_is_no_share() -> None:
    assert bench(CountingRunner(), (8,), tokens=2, step_bytes=500)[0].bandwidth_share is None


def test_the_cache_is_empty_afterwards() -> None:
    runner = CountingRunner()
    bench(runner, (8,), tokens=2)
    assert runner.length == 0


def test_progress_ends_at_one() -> None:
    seen: list[Event] = []
    bench(CountingRunner(), (8, 20), tokens=1, emit=seen.append)
    assert [event.fraction for event in seen if isinstance(event, Progress)] == pytest.approx([8 / 28, 1.0])


def test_a_stop_raises_cancelled() -> None:
    answers = iter([False] * 4)
    with pytest.raises(Cancelled):
        bench(CountingRunner(), (8,), tokens=5, should_stop=lambda: next(answers, True))
