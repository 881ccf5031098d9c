"""Results of the benchmark, one JSON object per line: reading, ratios between the sides with their spread, and curves.

A line with `seconds` is a run, a line with `text` an evaluation; both have the `name` of the run.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.versus_auto_round.configurations import OURS

Row = dict[str, Any]
RATIOS = ("seconds", "cpu_seconds", "peak_bytes", "output_bytes", "perplexity", "kl_mean")


@dataclass(frozen=True)
class Results:
    """The lines of a results file, which are appended as soon as they are known."""

    path: Path

    def rows(self) -> list[Row]:
        """Return all complete lines; a line that was cut off when the program ended is ignored."""
        found = []
        for line in self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else ():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found

    def add(self, row: Row) -> None:
        """Append a line, on a new line even after one that was cut off."""
        text = json.dumps(row) + "\n"
        with self.path.open("a+", encoding="utf-8") as stream:
            stream.seek(0)
            before = stream.read()
            stream.write(text if not before or before.endswith("\n") else "\n" + text)

    def run(self, name: str) -> Row | None:
        """Return the figures of a finished run."""
        return next((row for row in self.rows() if row["name"] == name and "seconds" in row), None)

    def evaluation(self, name: str, text: str, windows: int) -> Row | None:
        """Return the figures of an output on a text, measured with that limit of windows (0 for none)."""
        wanted = {"name": name, "text": text, "max_windows": windows}
        return next((row for row in self.rows() if wanted.items() <= row.items()), None)


def joined(rows: Iterable[Row], text: str) -> list[Row]:
    """Return the runs that were evaluated on a text, with the figures of both lines; the last evaluation applies."""
    rows = list(rows)
    evaluations = {row["name"]: row for row in rows if row.get("text") == text}
    return [row | evaluations[row["name"]] for row in rows if "seconds" in row and row["name"] in evaluations]


def setting_of(row: Row) -> tuple[Any, ...]:
    """Return what must agree for two runs to be compared: model, scheme, quantized blocks."""
    return (row["model"], row["scheme"], tuple(row["blocks"]))


def ratios(rows: list[Row]) -> list[Row]:
    """Return the figures of each recipe of ours relative to each of the other sides, at the same scheme and blocks.

    Runs are paired by their repetition. Each of RATIOS becomes the geometric mean of the pairs' ratios, with the
    smallest and the largest one. `kl_difference` is the mean difference of the KL divergence (ours minus theirs) and
    `kl_difference_standard_error` its standard error over windows, which are paired, so that their difficulty cancels.
    """
    found = []
    pairs: dict[tuple[tuple[Any, ...], str, str], list[tuple[Row, Row]]] = {}
    for ours in rows:
        for theirs in rows:
            same = setting_of(ours) == setting_of(theirs) and ours["repeat"] == theirs["repeat"]
            if ours["side"] == OURS != theirs["side"] and same:
                key = (setting_of(ours), _label(ours), _label(theirs))
                pairs.setdefault(key, []).append((ours, theirs))
    for ((model, scheme, blocks), our_label, their_label), matched in pairs.items():
        row: Row = {"model": model, "scheme": scheme, "blocks": list(blocks), "ours": our_label, "theirs": their_label}
        row["pairs"] = len(matched)
        for figure in RATIOS:
            each = [ours[figure] / theirs[figure] for ours, theirs in matched if ours[figure] and theirs[figure]]
            row[figure] = (statistics.geometric_mean(each), min(each), max(each)) if each else None
        differences = _window_differences(matched)
        row["kl_difference"] = statistics.fmean(differences)
        row["kl_difference_standard_error"] = (
            statistics.stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else math.nan
        )
        found.append(row)
    return found


def _label(row: Row) -> str:
    return f"{row['side']}:{row['recipe']}{row['settings']}"


def floor_name(model: str) -> str:
    """Return the name of the evaluation of the original model in bfloat16 against itself in float32."""
    return f"{model}-original-in-bfloat16"


def floor_lines(rows: Iterable[Row], text: str) -> list[str]:
    """Return the noise floor of each model on a text, as lines of text; smaller differences mean nothing."""
    rows = list(rows)
    names = {floor_name(row["model"]): row["model"] for row in rows if "seconds" in row}
    found = {row["name"]: row for row in rows if row.get("text") == text and row["name"] in names}
    lines = []
    for name, row in found.items():
        kl = f"KL {row['kl_mean']:.5f} +- {row['kl_standard_error']:.5f}, p99 {row['kl_p99']:.4f}"
        others = f"top-1 {100 * row['top1']:.1f} %, perplexity {row['perplexity']:.3f}"
        lines.append(f"{names[name]}, noise floor (the original in bfloat16): {kl}, {others}")
    return lines


def _window_differences(pairs: list[tuple[Row, Row]]) -> list[float]:
    """Return the difference of the KL divergence for each window, averaged over the pairs with as many windows."""
    count = len(pairs[0][0]["window_kl"])
    tables = [
        [own - other for own, other in zip(ours["window_kl"], theirs["window_kl"], strict=True)]
        for ours, theirs in pairs
        if len(ours["window_kl"]) == len(theirs["window_kl"]) == count
    ]
    if not tables:
        raise SystemExit("The two sides were evaluated on different numbers of windows. Evaluate both again.")
    return [statistics.fmean(values) for values in zip(*tables, strict=True)]


def ratio_lines(rows: list[Row]) -> list[str]:
    """Return the ratios as lines of text."""
    lines = []
    for row in rows:
        blocks = f", blocks {', '.join(map(str, row['blocks']))}" if row["blocks"] else ""
        lines.append(f"{row['model']} {row['scheme']}{blocks}: {row['ours']} / {row['theirs']}")
        for key in RATIOS:
            if row[key]:
                mean, low, high = row[key]
                spread = f" ({low:.3f} to {high:.3f}, {row['pairs']} pairs)" if row["pairs"] > 1 else ""
                lines.append(f"  {key:<13}{mean:.3f}{spread}")
        difference, error = row["kl_difference"], row["kl_difference_standard_error"]
        lines.append(f"  KL difference {difference:+.5f} +- {error:.5f} nats ({_in_errors(difference, error)})")
    return lines


def _in_errors(difference: float, error: float) -> str:
    return f"{difference / error:+.1f} standard errors" if error > 0 else "no spread over windows"


def curve_lines(rows: list[Row]) -> list[str]:
    """Return the quality against the tokens per block and the time, and the time in which ours reaches the other sides.

    Runs are sorted by side and tokens.
    """
    lines = []
    groups = dict.fromkeys(setting_of(row) for row in rows)
    for group in groups:
        chosen = [row for row in rows if setting_of(row) == group]
        chosen.sort(key=lambda row: (row["side"], row["tokens_per_block"], row["repeat"]))
        blocks = f", blocks {', '.join(map(str, group[2]))}" if group[2] else ""
        lines.append(f"{group[0]} {group[1]}{blocks}")
        titles = ("run", "tokens/block", "wall s", "CPU s", "KL mean", "+-", "p99", "top-1", "perplexity")
        table = [titles, *(_curve_cells(row) for row in chosen)]
        widths = [max(len(line[column]) for line in table) for column in range(len(titles))]
        for line in table:
            first, *others = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
            lines.append("  " + "  ".join([first.strip().ljust(widths[0]), *others]))
        for theirs in (row for row in chosen if row["side"] != OURS):
            ours = fastest_reaching(chosen, theirs["kl_mean"])
            label = f"{_label(theirs)} r{theirs['repeat']}"
            if ours is None:
                lines.append(f"  No run of ours reaches the KL of {label}.")
            else:
                share = ours["seconds"] / theirs["seconds"]
                lines.append(f"  KL of {label}: reached by {_label(ours)} in {share:.2f} of its time.")
    return lines


def _curve_cells(row: Row) -> tuple[str, ...]:
    return (
        f"{_label(row)} r{row['repeat']}",
        f"{row['tokens_per_block']:,}",
        f"{row['seconds']:.0f}",
        f"{row['cpu_seconds']:.0f}",
        f"{row['kl_mean']:.5f}",
        f"{row['kl_standard_error']:.5f}",
        f"{row['kl_p99']:.4f}",
        f"{100 * row['top1']:.1f}",
        f"{row['perplexity']:.3f}",
    )


def fastest_reaching(rows: Iterable[Row], kl: float) -> Row | None:
    """Return the run of ours with the least wall time and a mean KL divergence of at most `kl`."""
    enough = [row for row in rows if row["side"] == OURS and row["kl_mean"] <= kl]
    return min(enough, key=lambda row: float(row["seconds"]), default=None)
