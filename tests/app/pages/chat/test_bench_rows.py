"""What a measurement of speed found, believed only as far as it goes."""

from __future__ import annotations

from app.pages.chat.bench_rows import as_text, bench_from, summary

ROW = {
    "prompt": 128, "prefill": 190.0, "first_token": 0.67, "decode": 70.0, "memory": 145e6, "bandwidth_share": 0.4,
}  # fmt: skip


def test_rows_come_in_the_order_of_their_length() -> None:
    found = bench_from({"rows": [ROW, {**ROW, "prompt": 32}]})
    assert [row.prompt for row in found.rows] == [32, 128]


def test_what_is_no_row_is_left_out() -> None:
    assert bench_from({"rows": [None, 3, {"prompt": "x"}, {}]}).rows == ()


def test_missing_figures_are_none() -> None:
    row = bench_from({"rows": [{"prompt": 8, "bandwidth_share": None}]}).rows[0]
    assert (row.decode, row.share) == (0.0, 0.0)


def test_the_summary_tells_memory_and_its_use() -> None:
    found = summary(bench_from({"rows": [ROW], "bandwidth": 28.7e9}))
    assert found == "145 MB of memory. Writing takes 40 % of the 28.7 GB/s that memory gives."


def test_without_a_measured_bandwidth_nothing_is_said_of_it() -> None:
    assert "gives" not in summary(bench_from({"rows": [ROW]}))


def test_the_copied_table_has_a_line_for_each_row() -> None:
    assert as_text(bench_from({"rows": [ROW]}).rows).splitlines()[1].split("\t")[0] == "128"
