"""Speed measurements as text: a summary, and a table for the clipboard."""

from __future__ import annotations

from collections.abc import Sequence

from core.inference.figures import SpeedReport, SpeedRow
from core.wording import human


def summary(bench: SpeedReport) -> str:
    """Return the figures that have no column in the table: memory, and the share of its bandwidth in use."""
    parts: list[str] = []
    memory = max((row.memory_bytes for row in bench.rows), default=0)
    if memory:
        parts.append(f"Memory: {human(memory)}.")
    share = max((row.bandwidth_share or 0.0 for row in bench.rows), default=0.0)
    if share and bench.memory_bandwidth:
        parts.append(f"Decode uses {100 * share:.0f} % of the memory bandwidth of {human(bench.memory_bandwidth)}/s.")
    return " ".join(parts)


def as_text(rows: Sequence[SpeedRow]) -> str:
    """Return the rows as tab-separated text for the clipboard."""
    lines = [
        "prompt tokens\tprefill tokens/s\ttime to first token s\tdecode tokens/s\tmemory bytes\tshare of bandwidth"
    ]
    lines += [
        f"{row.prompt_tokens}\t{row.prefill_tokens_per_second:.2f}\t{row.first_token_seconds:.3f}\t{row.decode_tokens_per_second:.2f}\t{row.memory_bytes}"
        f"\t{row.bandwidth_share or 0.0:.3f}"
        for row in rows
    ]
    return "\n".join(lines) + "\n"
