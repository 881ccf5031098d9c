"""What a measurement of speed found, from the values of the service's `chat_bench` call. Knows no widget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.wording import human


@dataclass(frozen=True)
class BenchRow:
    """Speed at one length.

    Attributes:
        prompt: tokens that were read; prefill: tokens read per second; first_token: seconds until the answer began.
        decode: tokens written per second; memory: bytes; share: of the memory's bandwidth while writing, 0 to 1,
            0 where that is not known.
    """

    prompt: int
    prefill: float
    first_token: float
    decode: float
    memory: int = 0
    share: float = 0.0


@dataclass(frozen=True)
class Bench:
    """All lengths of one measurement.

    Attributes:
        rows: the shortest prompt first.
        bandwidth: bytes per second that memory was read with, 0 where that is not known.
        written: the report that has the figures now, "" where the model has none.
    """

    rows: tuple[BenchRow, ...] = ()
    bandwidth: float = 0.0
    written: str = ""


def bench_from(values: Mapping[str, Any]) -> Bench:
    """The values of the call; a row that is not one is left out."""
    found = [_row(row) for row in values.get("rows") or () if isinstance(row, Mapping)]
    rows = tuple(sorted((row for row in found if row.prompt > 0), key=lambda row: row.prompt))
    return Bench(rows, _number(values.get("bandwidth")), str(values.get("written") or ""))


def _row(row: Mapping[str, Any]) -> BenchRow:
    return BenchRow(
        int(_number(row.get("prompt"))),
        _number(row.get("prefill")),
        _number(row.get("first_token")),
        _number(row.get("decode")),
        int(_number(row.get("memory"))),
        _number(row.get("bandwidth_share")),
    )


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0


def summary(bench: Bench) -> str:
    """What the table has no column for: memory, and how much of its speed is used."""
    parts: list[str] = []
    memory = max((row.memory for row in bench.rows), default=0)
    if memory:
        parts.append(f"{human(memory)} of memory.")
    share = max((row.share for row in bench.rows), default=0.0)
    if share and bench.bandwidth:
        parts.append(f"Writing takes {100 * share:.0f} % of the {human(bench.bandwidth)}/s that memory gives.")
    return " ".join(parts)


def as_text(rows: Sequence[BenchRow]) -> str:
    """The rows as a table for the clipboard, with tabs between the columns."""
    lines = ["prompt tokens\tread tokens/s\tfirst token s\twritten tokens/s\tmemory bytes\tshare of bandwidth"]
    lines += [
        f"{row.prompt}\t{row.prefill:.2f}\t{row.first_token:.3f}\t{row.decode:.2f}\t{row.memory}\t{row.share:.3f}"
        for row in rows
    ]
    return "\n".join(lines) + "\n"
