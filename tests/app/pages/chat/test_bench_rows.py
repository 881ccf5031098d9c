"""Speed measurements as text."""

from __future__ import annotations

from app.pages.chat.bench_rows import as_text, summary
from core.inference.figures import SpeedReport, SpeedRow

ROW = SpeedRow(128, 190.0, 0.67, 70.0, 145_000_000, 0.4)


def test_the_summary_tells_memory_and_its_use() -> None:
    found = summary(SpeedReport((ROW,), memory_bandwidth=28.7e9))
    assert found == "Memory: 145 MB. Decode uses 40 % of the memory bandwidth of 28.7 GB/s."


def test_without_a_measured_bandwidth_nothing_is_said_of_it() -> None:
    assert "gives" not in summary(SpeedReport((ROW,)))


def test_a_share_that_is_not_known_is_left_out() -> None:
    row = SpeedRow(8, 1.0, 1.0, 1.0)
    assert summary(SpeedReport((row,), memory_bandwidth=1e9)) == ""
    assert as_text((row,)).splitlines()[1].endswith("\t0.000")


def test_the_copied_table_has_a_line_for_each_row() -> None:
    assert as_text((ROW,)).splitlines()[1].split("\t")[0] == "128"
