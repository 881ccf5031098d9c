"""Every knob of a run beside bits and text: what it is called, what it does, what it can be and what it is by default.

A table and the functions that read a value out of a text and refuse what is impossible, in the words of `core`.
Knows no widget.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from core.recipes import Recipe
from core.spec import JobSpec
from core.wording import figure

Kind = Literal["whole", "rate", "switch"]
_THOUSANDS = re.compile(r"\d{1,3}([, \u00a0\u202f]\d{3})+", re.ASCII)


@dataclass(frozen=True)
class Knob:
    """One knob.

    Attributes:
        key: field of `Recipe`; of the choices, and of `JobSpec`, where `of_job`.
        label, unit, explanation: for people; the explanation is one line.
        kind: a whole number, a rate (a number that may be left to follow others), or yes and no.
        low, high: the possible values of a number.
    """

    key: str
    label: str
    unit: str
    kind: Kind
    explanation: str
    low: float = 0
    high: float = 0
    of_job: bool = False


KNOBS = (
    Knob("iters", "Iterations", "steps a block", "whole",
         "More steps round better and take longer; 0 is plain rounding.", 0, 100_000),
    Knob("lr", "Learning rate", "levels", "rate",
         "Size of the first step of the rounding; later ones shrink. Empty: one over the iterations.", 0, 10),
    Knob("minmax_lr", "Range rate", "levels", "rate",
         "The same for the range that each group of weights covers. Empty: as the learning rate.", 0, 10),
    Knob("low_bit_lr_scale", "Low-bit factor", "times", "rate",
         "Multiplies the learning rate in layers of 2 and 3 bits, which need wider steps.", 0, 10),
    Knob("samples", "Samples", "rows of text", "whole",
         "How many pieces of calibration text the tuning sees.", 1, 1_000_000),
    Knob("seqlen", "Tokens per sample", "tokens", "whole",
         "How long each piece is. Time grows with it, quality only a little.", 8, 1_000_000),
    Knob("batch_size", "Batch size", "samples a pass", "whole",
         "Samples that are computed at once. More of them need more memory.", 1, 100_000),
    Knob("accumulate", "Accumulate", "passes a step", "whole",
         "Passes that are added up to one step: a larger step in the same memory.", 1, 100_000),
    Knob("search_scale", "Scale search", "", "switch",
         "Tries many scales for each group first; helps symmetric layers of up to 4 bits."),
    Knob("seed", "Seed", "", "whole",
         "Decides which text is drawn, in which order; the same seed, the same result.", 0, 2**63 - 1, of_job=True),
    Knob("low_memory", "Low memory", "", "switch",
         "Intermediate values on disk, one sample at a time: slower, in far less memory.", of_job=True),
    Knob("compile", "torch.compile", "", "switch",
         "Compiles every block first, which pays in long runs. On a CPU it needs a C++ compiler.", of_job=True),
)  # fmt: skip

_JOB_DEFAULTS = {item.name: item.default for item in fields(JobSpec)}


def value_of(knob: Knob, recipe: Recipe, job: Mapping[str, Any]) -> Any:
    """What the knob is at; `job` holds the values of those that are no recipe's."""
    return job[knob.key] if knob.of_job else getattr(recipe, knob.key)


def default_of(knob: Knob, base: Recipe) -> Any:
    """The value that the knob has while nobody turned it: that of the recipe `base`, or of a job."""
    return _JOB_DEFAULTS[knob.key] if knob.of_job else getattr(base, knob.key)


def parse(knob: Knob, text: str) -> Any:
    """The value that `text` means. What is no number comes back as it is, for `check` to refuse by name."""
    text = text.strip()
    if knob.kind == "rate":
        if not text and knob.key in ("lr", "minmax_lr"):
            return None
        try:
            return float(text.replace(",", "."))
        except ValueError:
            return text
    if _THOUSANDS.fullmatch(text):
        text = re.sub(r"\D", "", text)
    return int(text) if re.fullmatch(r"-?[0-9]{1,25}", text) else text


def check(knob: Knob, recipe: Recipe, value: Any) -> None:
    """Refuse a value that the knob cannot have.

    Raises:
        BadInput: in the words of the recipe or of the job.
    """
    if knob.of_job:
        JobSpec("model", "output", **{knob.key: value})
    else:
        replace(recipe, **{knob.key: value})


def shown(value: Any) -> str:
    """A value as the field shows it, and as `parse` reads it back."""
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def spoken(knob: Knob, value: Any) -> str:
    """A value in a sentence: `40`, `on`, `automatic`."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return "automatic" if value is None else shown(value)


def automatic(knob: Knob, recipe: Recipe) -> str:
    """What an empty rate amounts to in this recipe; "" for a knob that cannot be empty."""
    if knob.key == "lr":
        return figure(1.0 / max(1, recipe.iters))
    return figure(recipe.learning_rate(4)) if knob.key == "minmax_lr" else ""


def changed(recipe: Recipe, base: Recipe) -> list[str]:
    """Keys of the recipe's values that are not those of the recipe it started from."""
    return [knob.key for knob in KNOBS if not knob.of_job and getattr(recipe, knob.key) != getattr(base, knob.key)]
