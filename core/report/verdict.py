"""What a report means, in plain words: how much the model lost, what else should be known, and what would help.

Pure: report in, sentences out. Reads a report of any age or origin, so it takes nothing for granted.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from core.wording import figure

Grade = Literal["none", "small", "clear", "large", "broken", "unknown"]

NONE, SMALL, CLEAR, LARGE = 0.01, 0.10, 0.25, 0.75
"""Upper ends of the grades, as growth of perplexity. Why these: see `grade_of`."""
FALL = 0.02
"""A perplexity that falls by more than this share shows a bad measurement: rounding adds errors."""

_HEADLINES: dict[Grade, str] = {
    "none": "No loss to speak of",
    "small": "Small loss",
    "clear": "Clear loss",
    "large": "Large loss",
    "broken": "The model is damaged",
    "unknown": "The loss is not known",
}
_MEANINGS: dict[Grade, str] = {
    "none": "You should not notice a difference.",
    "small": "Most answers should read the same.",
    "clear": "Expect weaker answers now and then, most of all where facts or code must be exact.",
    "large": "Expect noticeably weaker answers; try it before you rely on it.",
    "broken": "Answers will often be wrong or make no sense.",
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
    """A report in words.

    Attributes:
        grade: the class of the loss; role: the colour that fits it (`good`, `warning`, `bad`, `muted`).
        headline: two to five words; figures: the perplexities behind it; meaning: what a user will notice.
        advice: what would lose less, or "".
        notes: what else should be known before the figures are believed.
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
    """The verdict on a report."""
    measured = report.get("perplexity")
    values = measured if isinstance(measured, Mapping) else {}
    before, after = _number(values.get("original")), _number(values.get("quantized"))
    error, vocabulary = _number(values.get("increase_error")), _number(values.get("vocabulary"))
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


def grade_of(before: float, after: float) -> Grade:
    """The class of a loss from the perplexity of the original and of the quantized model.

    Both are measured on the same windows of text, so that the text's own difficulty cancels and only the ratio is
    judged. Its logarithm is what the model lost on a token, on average:

    - up to 1 % (0.01 nats a token): less than a few other windows of text would change;
    - up to 10 % (0.1 nats): what 4 bits cost a small model (SmolLM2-135M in groups of 64: 6 to 9 % with 50 steps),
      and more than they cost a large one, which has more to spare;
    - up to 25 % (0.22 nats): more than a good choice of bits for the model has to lose;
    - up to 75 % (0.56 nats): what 3 bits, or 2 with much tuning, do to a small model;
    - beyond: perplexity nearly doubled or worse, as at 2 bits with few steps.

    One that falls by more than 2 % was not measured well, and says nothing.

    Rules of thumb, for one text in English: two models of one grade may still differ in what they are used for.
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
    """Both perplexities and their change with its standard error."""
    if not (math.isfinite(before) and before > 0) or math.isnan(after):
        return "The report holds no perplexity of both models."
    change = 100 * (after / before - 1)
    sign = "+" if change >= 0.05 else "\N{MINUS SIGN}" if change <= -0.05 else ""
    share = f"{abs(change):.1f}" if abs(change) < 100 else figure(float(f"{abs(change):.3g}"))
    # The error is that of the mean difference of log-probabilities: a share of the quantized model's perplexity.
    spread = 100 * error * after / before
    about = f" \N{PLUS-MINUS SIGN} {spread:.1f} %" if spread < 100 else " %" if math.isnan(spread) else " % or so"
    return (
        f"Perplexity {figure(before)} \N{RIGHTWARDS ARROW} {figure(after)} ({sign}{share}{about})"
        " on text it had not seen."
    )


def _doubt(before: float, after: float, error: float, vocabulary: float) -> str:
    """Why the figures cannot be judged, or "".

    Args:
        error: standard error of the mean increase of the loss in nats a token; NaN where a report has none.
        vocabulary: number of tokens that the model knows; NaN where a report does not say.
    """
    if not (math.isfinite(before) and before > 0) or math.isnan(after):
        return ""
    if before > 2 * vocabulary:
        return (
            "The original itself predicts this text worse than a guess among all tokens, so the change says nothing: "
            "check its tokenizer and its files."
        )
    if after / before < 1 - FALL:
        return (
            "Quantizing does not make a model better, so this measurement is not to be trusted: the text does not "
            "suit the model. Compare the two with `bitwright eval` on a text of your own."
        )
    if math.isfinite(error) and after / before - 1 <= SMALL and (after / before) * math.exp(2 * error) - 1 > CLEAR:
        return "The windows of text differ so much that the loss cannot be told from chance."
    return ""


def tuning_gain(report: Mapping[str, Any]) -> float | None:
    """Share of the rounding error that tuning removed from the typical block, None where nothing was tuned."""
    gains = []
    for block in _blocks(report):
        before, after = _number(block.get("loss_before")), _number(block.get("loss_after"))
        if before > 0 and after >= 0:
            gains.append(1 - after / before)
    if not gains or _iterations(report) == 0:
        return None
    return statistics.median(gains)


def _advice(report: Mapping[str, Any], grade: Grade) -> str:
    """What would lose less; nothing where there is little to win."""
    if grade in ("none", "small", "unknown"):
        return ""
    bits = [int(key) for key in _mapping(report.get("bits")) if key.isdecimal() and int(key) < 16]
    steps = _iterations(report)
    ways = []
    if bits and min(bits) <= 3:
        ways.append(f"more bits for some of the layers that have {min(bits)} now")
    if steps is not None and steps < 200:
        ways.append("a recipe with more steps and more text (light, default or best)")
    scheme = _mapping(_mapping(report.get("settings")).get("default_scheme"))
    size = scheme.get("group_size")
    if isinstance(size, int) and (size > 64 or size < 0):
        ways.append("smaller groups (64 or 32)")
    if not ways:
        return "More bits would lose less."
    words = f"{', '.join(ways[:-1])} or {ways[-1]}" if len(ways) > 1 else ways[0]
    return f"To lose less, try {words}."


def _notes(report: Mapping[str, Any]) -> list[str]:
    notes = []
    note = report.get("note")
    if isinstance(note, str) and note:
        already = "The loss is measured against that file, not against the model that it was made from."
        notes.append(f"{note} {already}")
    gain = tuning_gain(report)
    if gain is not None and gain > 0.005:
        notes.append(f"Tuning took away {100 * gain:.0f} % of the rounding error of a typical block.")
    elif gain is not None:
        notes.append("Tuning found nothing better than plain rounding for a typical block; it may need more steps.")
    diverged = [block for block in _blocks(report) if block.get("diverged") is True]
    rounded = sum(not block.get("best_iteration") for block in diverged)
    for count, what in ((rounded, "left with plain rounding"), (len(diverged) - rounded, "tuned for fewer steps")):
        if count:
            blocks = "1 block was" if count == 1 else f"{count} blocks were"
            notes.append(f"{blocks} {what}, since the loss was no longer finite.")
    fallbacks = _mapping(report.get("fallbacks"))
    if fallbacks:
        layers = "1 layer" if len(fallbacks) == 1 else f"{len(fallbacks)} layers"
        notes.append(f"{layers} did not get what the map asked for; the reasons are below.")
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
    """A number as it is; JSON has no infinity, so a figure that was none is null and counts as not known."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
