"""Speed measurements as text: a summary, and a table for the clipboard."""

from __future__ import annotations

from collections.abc import Sequence

from core.inference.figures import SpeedReport, SpeedRow
from core.wording import human


def summary(bench: SpeedReport) -> str:
    """What the table has no column for: memory, and how much of its speed is used."""
    parts: list[str] = []
    memory = max((row.memory for row in bench.rows), default=0)
    if memory:
        parts.append(f"{human(memory)} of memory.")
    share = max((row.bandwidth_share or 0.0 for row in bench.rows), default=0.0)
    if share and bench.bandwidth:
        parts.append(f"Writing takes {100 * share:.0f} % of the {human(bench.bandwidth)}/s that memory gives.")
    return " ".join(parts)


def as_text(rows: Sequence[SpeedRow]) -> str:
    """The rows as a table for the clipboard, with tabs between the columns."""
    lines = ["prompt tokens\tread tokens/s\tfirst token s\twritten tokens/s\tmemory bytes\tshare of bandwidth"]
    lines += [
        f"{row.prompt}\t{row.prefill:.2f}\t{row.first_token:.3f}\t{row.decode:.2f}\t{row.memory}"
        f"\t{row.bandwidth_share or 0.0:.3f}"
        for row in rows
    ]
    return "\n".join(lines) + "\n"
