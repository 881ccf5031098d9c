"""Assessment of a report in plain words: the quality loss, notes, and advice for a smaller loss.

Reports may be of any age or origin, so that every field may be missing or invalid.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from core import recipes
from core.report.experts import expert_notes
from core.wording import figure

Grade = Literal["none", "small", "clear", "large", "broken", "unknown"]

VERSION: Final = 2
"""Version of the keys of reports."""
NONE, SMALL, CLEAR, LARGE = 0.01, 0.10, 0.25, 0.75
"""Upper limits of the grades, as relative increase of the perplexity; explained in `grade_of`."""
FALL = 0.02
"""Relative decrease of the perplexity from which a measurement is considered invalid, since rounding adds errors."""

_HEADLINES: dict[Grade, str] = {
    "none": "Negligible loss",
    "small": "Small loss",
    "clear": "Clear loss",
    "large": "Large loss",
    "broken": "The model is damaged",
    "unknown": "Unknown loss",
}
_MEANINGS: dict[Grade, str] = {
    "none": "You should not notice a difference.",
    "small": "Most answers should read the same.",
    "clear": "Expect weaker answers occasionally, especially for facts and code.",
    "large": "Expect noticeably weaker answers. Test the model before you rely on it.",
    "broken": "Answers will often be wrong or meaningless.",
    "unknown": "",
}
_ROLES: dict[Grade, Literal["good", "warning", "bad", "muted"]] = {
    "none": "good",
    "small": "good",
    "clear": "warning",
    "large": "warning",
    "broken": "bad",
    "unknown": "muted",
}


@dataclass(frozen=True)
class Verdict:
    """Assessment of a report.

    Attributes:
        grade: grade of the loss.
        role: color role of the grade (`good`, `warning`, `bad`, `muted`).
        headline: the grade in two to five words.
        figures: the perplexities, as one sentence.
        meaning: the effect for a user, or the reason why the loss is unknown.
        advice: settings with a smaller loss, or "".
        notes: further remarks about the run.
    """

    grade: Grade
    role: Literal["good", "warning", "bad", "muted"]
    headline: str
    figures: str
    meaning: str
    advice: str
    notes: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """Headline and figures as one line, for a notification or a table."""
        return f"{self.headline}: {self.figures[:1].lower()}{self.figures[1:]}" if self.figures else f"{self.headline}."


def judge(report: Mapping[str, Any]) -> Verdict:
    """Return the verdict on a report."""
    measured = report.get("perplexity")
    values = measured if isinstance(measured, Mapping) else {}
    before, after = _number(values.get("original")), _number(values.get("quantized"))
    error, vocabulary = _number(values.get("loss_increase_standard_error")), _number(values.get("vocab_size"))
    doubt = _doubt(before, after, error, vocabulary)
    grade: Grade = "unknown" if doubt else grade_of(before, after)
    return Verdict(
        grade,
        _ROLES[grade],
        _HEADLINES[grade],
        _figures(before, after, error),
        doubt or _MEANINGS[grade],
        _advice(report, grade),
        tuple(_notes(report)),
    )


def is_outdated(report: Mapping[str, Any]) -> bool:
    """Return whether an earlier version of Bitwright wrote the report: its figures have other keys."""
    version = report.get("version")
    return not isinstance(version, int) or version < VERSION


def grade_of(before: float, after: float) -> Grade:
    """Return the grade of the loss, from the perplexity of the original and of the quantized model.

    Both are measured on the same rows of text, so that the difficulty of the text cancels and only the ratio matters.
    Its logarithm is the mean increase of the loss per token:

    - up to 1 % (0.01 nats per token): less than the effect of choosing other rows of the text;
    - up to 10 % (0.1 nats): typical for a small model with 4 bits (SmolLM2-135M in groups of 64: 6 to 9 % with 50
      steps), and more than for a large model;
    - up to 25 % (0.22 nats): more than with a good choice of bits for the model;
    - up to 75 % (0.56 nats): typical for a small model with 3 bits, or with 2 bits and many steps;
    - beyond: the perplexity has nearly doubled or worse, as with 2 bits and few steps.

    A decrease by more than 2 % is an invalid measurement, with the grade "unknown".

    These are rules of thumb for one English text; models of the same grade may differ in a particular task.
    """
    if not (math.isfinite(before) and before > 0) or math.isnan(after):
        return "unknown"
    growth = after / before - 1
    if growth < -FALL:
        return "unknown"
    if growth <= NONE:
        return "none"
    if growth <= SMALL:
        return "small"
    if growth <= CLEAR:
        return "clear"
    return "large" if growth <= LARGE else "broken"


def _figures(before: float, after: float, error: float) -> str:
    """Return both perplexities and the relative change with its standard error, as one sentence."""
    if not (math.isfinite(before) and before > 0) or math.isnan(after):
        return "The report does not contain the perplexity of both models."
    change = 100 * (after / before - 1)
    sign = "+" if change >= 0.05 else "\N{MINUS SIGN}" if change <= -0.05 else ""
    share = f"{abs(change):.1f}" if abs(change) < 100 else figure(float(f"{abs(change):.3g}"))
    # `error` is the standard error of the mean loss increase, and so relative to the quantized model's perplexity.
    spread = 100 * error * after / before
    about = f" \N{PLUS-MINUS SIGN} {spread:.1f} %" if spread < 100 else " %" if math.isnan(spread) else " % or so"
    return (
        f"Perplexity {figure(before)} \N{RIGHTWARDS ARROW} {figure(after)} ({sign}{share}{about})"
        " on text not used for calibration."
    )


def _doubt(before: float, after: float, error: float, vocabulary: float) -> str:
    """Return the reason why the figures cannot be graded, or "".

    Args:
        before: perplexity of the original.
        after: perplexity of the quantized model.
        error: standard error of the mean loss increase in nats per token; NaN if unknown.
        vocabulary: size of the vocabulary; NaN if unknown.
    """
    if not (math.isfinite(before) and before > 0) or math.isnan(after):
        return ""
    if before > 2 * vocabulary:
        return (
            "The original predicts this text worse than random guessing, so the change is meaningless. "
            "Check the tokenizer and the files of the original."
        )
    if after / before < 1 - FALL:
        return (
            "Quantization does not improve a model, so this measurement is not reliable: the text does not suit the "
            "model. Compare both models with `bitwright eval` on your own text."
        )
    if math.isfinite(error) and after / before - 1 <= SMALL and (after / before) * math.exp(2 * error) - 1 > CLEAR:
        return "The results of the text's rows vary so much that the loss is not significant."
    return ""


def tuning_gain(report: Mapping[str, Any]) -> float | None:
    """Return the share of the rounding error that tuning removed from the median block, or None without tuning."""
    gains = []
    for block in _blocks(report):
        before, after = _number(block.get("loss_before")), _number(block.get("loss_after"))
        if before > 0 and after >= 0:
            gains.append(1 - after / before)
    if not gains or _iterations(report) == 0:
        return None
    return statistics.median(gains)


def _advice(report: Mapping[str, Any], grade: Grade) -> str:
    """Return advice for a smaller loss, or "" if the loss is small or unknown."""
    if grade in ("none", "small", "unknown"):
        return ""
    bits = [int(key) for key in _mapping(report.get("layers_by_bits")) if key.isdecimal() and int(key) < 16]
    steps = _iterations(report)
    ways = []
    if bits and min(bits) <= 3:
        ways.append(f"more bits for some of the layers with {min(bits)} bits")
    dearer = [name for name in ("default", "best") if steps is not None and steps < recipes.load(name).iters]
    if dearer:
        ways.append(f"a recipe with more steps and more text ({' or '.join(dearer)})")
    scheme = _mapping(_mapping(report.get("settings")).get("default_scheme"))
    size = scheme.get("group_size")
    if isinstance(size, int) and (size > 64 or size < 0):
        ways.append("smaller groups (64 or 32)")
    if not ways:
        return "More bits would reduce the loss."
    words = f"{', '.join(ways[:-1])} or {ways[-1]}" if len(ways) > 1 else ways[0]
    return f"To reduce the loss, try {words}."


def _notes(report: Mapping[str, Any]) -> list[str]:
    notes = []
    if is_outdated(report):
        notes.append("This report was written by an earlier version of Bitwright, so some figures are not shown.")
    note = report.get("source_note")
    if isinstance(note, str) and note:
        reference = "The loss is measured against that file, not against the model from which the file was created."
        notes.append(f"{note} {reference}")
    gain = tuning_gain(report)
    if gain is not None and gain > 0.005:
        notes.append(f"Tuning removed {100 * gain:.0f} % of the rounding error of a typical block.")
    elif gain is not None:
        notes.append("Tuning did not improve on plain rounding in a typical block; it may need more steps.")
    diverged = [block for block in _blocks(report) if block.get("diverged") is True]
    rounded = sum(not block.get("best_iteration") for block in diverged)
    for count, what in ((rounded, "left with plain rounding"), (len(diverged) - rounded, "tuned for fewer steps")):
        if count:
            blocks = "1 block was" if count == 1 else f"{count} blocks were"
            notes.append(f"{blocks} {what} because the loss became infinite or NaN.")
    notes += expert_notes(report)
    fallbacks = _mapping(report.get("fallbacks"))
    if fallbacks:
        layers = "1 layer" if len(fallbacks) == 1 else f"{len(fallbacks)} layers"
        notes.append(f"{layers} could not get the scheme of the bits map; the reasons are below.")
    return notes


def _iterations(report: Mapping[str, Any]) -> int | None:
    value = _mapping(_mapping(report.get("settings")).get("recipe")).get("iters")
    return value if isinstance(value, int) else None


def _blocks(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    value = report.get("blocks")
    return [block for block in value if isinstance(block, Mapping)] if isinstance(value, list) else []


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _number(value: Any) -> float:
    """Return a number as float, or NaN for anything else; infinite values are stored as null, since JSON lacks them."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
