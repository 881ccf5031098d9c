"""The line under a progress bar: how much, how fast, how long, and that nothing comes."""

from __future__ import annotations

from app.widgets.transfer import Transfer

TOTAL = 2_000_000_000


def steady(seconds: int, share: float = 0.01) -> Transfer:
    """A transfer at `share` a second since time 100."""
    made = Transfer(TOTAL, 100.0)
    for second in range(1, seconds + 1):
        made.arrived(second * share, 100.0 + second, 50.0, 70.0)
    return made


def test_amount_rate_and_time_left() -> None:
    assert steady(20).text(120.0) == "400 MB of 2 GB, 20 MB/s, 50 to 70 s left"


def test_the_rate_is_that_of_the_last_seconds() -> None:
    transfer = steady(20)
    for second in range(21, 41):
        transfer.arrived(0.2 + (second - 20) * 0.02, 100.0 + second)
    assert abs(transfer.rate(140.0) - 0.02) < 1e-9


def test_the_rate_falls_to_nothing_when_nothing_comes() -> None:
    transfer = steady(20)
    assert 0 < transfer.rate(125.0) < 0.01
    assert transfer.rate(140.0) == 0
    assert transfer.text(132.0) == "400 MB of 2 GB"
    assert transfer.text(145.0) == "400 MB of 2 GB, no data for 25 s"


def test_reports_without_news_are_silence_too() -> None:
    transfer = steady(20)
    for second in range(21, 46):
        transfer.arrived(0.2, 100.0 + second)
    assert transfer.silent_seconds(145.0) == 25.0


def test_a_new_beginning_is_not_a_negative_rate() -> None:
    transfer = steady(20)
    transfer.arrived(0.0, 121.0)
    transfer.arrived(0.01, 122.0)
    assert abs(transfer.rate(122.0) - 0.01) < 1e-9


def test_before_anything_came() -> None:
    assert Transfer(TOTAL, 0.0).text(0.0) == "0 bytes of 2 GB"


def test_without_a_total_there_is_only_a_share() -> None:
    transfer = Transfer(0, 0.0)
    transfer.arrived(0.25, 1.0)
    assert transfer.text(1.0) == "25%"
