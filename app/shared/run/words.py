"""Texts about a run: headings, activity, remaining time and ending. Pure functions of the record."""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

from app.shared.run.record import OPTIONAL_STAGE, RunRecord
from core.events import Failed
from core.jobs.worker import ORPHANED
from core.wording import duration, figure, human, percentage, time_range

_STAGES = {
    "": "Starting",
    "prepare": "Opening the model",
    "calibrate": "Reading the calibration text and checking each block",
    "tune": "Tuning",
    "end to end": "Tuning all scales and norms together",
    "write": "Writing the files",
    "verify": "Reading the files back and checking them",
}
_PARTS = {
    "": "before it began",
    "prepare": "while opening the model",
    "calibrate": "while reading the calibration text and checking the model",
    "end to end": "while tuning all scales and norms together",
    "write": "while writing the files",
    "verify": "while checking the files",
}
_OPTIONS = {
    "seqlen": "sequence length",
    "output": "output folder",
    "iters": "number of iterations",
    "memory": "memory limit",
}


@dataclass(frozen=True)
class Ending:
    """The end of a run without a result.

    Attributes:
        headline, message, hint: three texts of increasing detail; the last two may be "".
        role: color role of the theme.
    """

    headline: str
    message: str
    hint: str
    role: Literal["bad", "muted"]


def model_of(record: RunRecord) -> str:
    """Return the display name of the model."""
    if record.started is not None:
        return PurePath(record.started.model).name or record.started.model
    if record.spec is None:
        return "the model"
    if record.spec.model == "demo":
        return "SmolLM2-135M-Instruct"
    return PurePath(record.spec.model).name or record.spec.model


def title_of(record: RunRecord) -> str:
    """Return the heading of a run: `SmolLM2-135M-Instruct to 4 bits`."""
    spec = record.spec
    if spec is None:
        return model_of(record)
    mixed = bool(spec.bits_map.rules or spec.bits_map.layers)
    bits = "mixed bits" if mixed else f"{spec.bits_map.default.bits} bits"
    return f"{model_of(record)} to {bits}"


def doing(record: RunRecord) -> str:
    """Return the current activity of the run, as one line."""
    if record.state == "stopping":
        return "Stopping"
    if record.state == "paused":
        return "Paused between two steps" if record.stage == OPTIONAL_STAGE else "Paused between two blocks"
    text = _STAGES.get(record.stage, record.stage)
    if record.stage == "tune" and record.block >= 0:
        text = f"Tuning block {record.block + 1} of {record.total}"
        if finding_start(record):
            text = f"Block {record.block + 1} of {record.total}: integers and scales without gradients"
    step = record.end_to_end
    if record.stage == OPTIONAL_STAGE and step is not None:
        text = f"{text}: step {step.step:,} of {step.steps:,}, KL divergence {figure(step.kl)}"
    if record.fetching is not None:
        text = f"Downloading the model, {100 * record.fetching.fraction:.0f} %"
    return f"{text}; pausing after this block" if record.state == "pausing" else text


def left(record: RunRecord) -> str:
    """Return the remaining time as text; "" if unknown."""
    if record.state in ("paused", "stopping", "starting"):
        return ""
    if record.fetching is not None:
        return _left(record.fetching.seconds_low, record.fetching.seconds_high)
    return _left(record.seconds_low, record.seconds_high)


def facts(record: RunRecord, now: float | None = None) -> list[tuple[str, str]]:
    """Return names and values of the measurements of a run; `now` in seconds since the epoch."""
    found: list[tuple[str, str]] = []
    if record.began:
        end = record.seen if not record.active else time.time() if now is None else now
        found.append(("Elapsed time" if record.active else "Time", duration(max(0.0, end - record.began))))
    if record.memory is not None:
        if record.memory.resident:
            found.append(("Memory now", human(record.memory.resident)))
        found.append(("Peak memory", human(record.memory.peak)))
        if record.memory.device:
            found.append(("Device memory", human(record.memory.device)))
    if record.tokens_per_step:
        found.append(("Tokens per step", f"{record.tokens_per_step:,}"))
    if record.started is not None:
        device = record.started.device.upper()
        threads = f", {record.started.threads} threads" if record.started.device == "cpu" else ""
        found.append(("Device", f"{device}, {record.started.dtype}{threads}"))
    return found


def finding_start(record: RunRecord) -> bool:
    """Return whether the current block has no step yet and its layers have a start."""
    curve = record.curves.get(record.block)
    return record.has_start and record.block not in record.blocks and (curve is None or not curve.losses)


def curve_title(record: RunRecord, block: int, view: str = "loss") -> str:
    """Return the heading of a view of a block (start or loss), or of the end-to-end stage."""
    if view == "end to end":
        return "End-to-end stage"
    name = "Start" if view == "start" else "Loss"
    return name if block < 0 else f"{name} of block {block + 1} of {record.total}"


def start_words(record: RunRecord, block: int) -> str:
    """Return the mean errors of the layers of a block with plain rounding and with the start, "" before the first."""
    found = record.starts.get(block)
    if not found:
        return ""
    before, after = (
        sum(errors) / len(found) for errors in zip(*((one.before, one.after) for one in found.values()), strict=True)
    )
    return f"Mean of the layers: {percentage(before)} \N{RIGHTWARDS ARROW} {percentage(after)}"


def stage_words(record: RunRecord) -> str:
    """Return the result of the end-to-end stage on the held-out text, or its last step."""
    result = record.report.get("end_to_end")
    if isinstance(result, dict):
        figures = [result.get(f"heldout_kl_{when}") for when in ("before", "after")]
        if all(isinstance(one, int | float) for one in figures):
            before, after = (figure(float(one)) for one in figures if one is not None)
            return f"On held-out text: {before} \N{RIGHTWARDS ARROW} {after}"
    last = record.end_to_end
    return "" if last is None else f"Step {last.step:,} of {last.steps:,}"


def curve_words(record: RunRecord, block: int) -> str:
    """Return the result of a block's tuning, or its lowest loss so far."""
    figures = record.blocks.get(block)
    if figures is not None and not figures.best:
        kept = "The start" if record.has_start else "Plain rounding"
        return f"{kept} was kept; no iteration was better" if record.iterations else f"{kept}, not tuned"
    if figures is not None:
        return f"Best: iteration {figures.best}"
    curve = record.curves.get(block)
    if curve is None or not math.isfinite(curve.lowest):
        return ""
    return f"Lowest loss so far: {figure(curve.lowest)} at iteration {curve.lowest_at} of {record.iterations}"


def ending(record: RunRecord) -> Ending | None:
    """Return the way a run ended without a result; None if it is active or has one."""
    last = record.last
    if not isinstance(last, Failed):
        return None
    if record.state == "cancelled":
        if last.message == ORPHANED:
            again = "Start it again, and choose \u201cKeep running\u201d when you close the window."
            return Ending("Stopped with the window", f"{ORPHANED} All its files were removed.", again, "muted")
        where = "" if record.block < 0 else f" at block {record.block + 1} of {record.total}"
        return Ending("Cancelled", f"The run was stopped{where}. All its files were removed.", "", "muted")
    if last.before_tuning or record.stage == "prepare":
        headline = "The run could not start"
    else:
        headline = f"The run failed {_where(record)}"
    if record.state == "died":
        headline = f"The run ended unexpectedly {_where(record)}" if record.block >= 0 else "The run ended unexpectedly"
    return Ending(headline, last.message, for_the_window(last.hint), "bad")


def _where(record: RunRecord) -> str:
    if record.stage == "tune" and record.block >= 0:
        return f"at block {record.block + 1} of {record.total}"
    return _PARTS.get(record.stage, "before the first block")


def _left(low: float, high: float) -> str:
    if not (math.isfinite(low) and math.isfinite(high)) or low < 0 or high <= 0:
        return ""
    if high < 20:
        return "a few seconds left"
    if low < 90 <= high < 5400:  # one unit for both ends
        first, last = max(1, round(low / 60)), round(high / 60)
        return f"{first} to {last} min left" if first != last else f"about {last} min left"
    return f"{time_range(low, high)} left"


def for_the_window(hint: str) -> str:
    """Return a hint with the names of command line options as words: `--batch-size` becomes `batch size`."""
    return re.sub(r"--([a-z]+(?:-[a-z]+)*)", lambda found: _OPTIONS.get(found[1], found[1].replace("-", " ")), hint)
