"""The table of all parameters of a run except bits and text: names, explanations, ranges and defaults.

Also parses and validates their values, with the errors of `core`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from core.allocation.request import parse_size
from core.errors import BadInput
from core.recipes import FOR_ROUNDING, Recipe
from core.spec import JobSpec
from core.wording import exact_bytes, figure

Kind = Literal["whole", "rate", "switch", "choice", "size"]
_THOUSANDS = re.compile(r"\d{1,3}([, \u00a0\u202f]\d{3})+", re.ASCII)


@dataclass(frozen=True)
class Parameter:
    """A parameter of a run.

    Attributes:
        key: the field of `Recipe`; of the choices and of `JobSpec` if `of_job`.
        label, unit, explanation: texts of the row; the explanation is one line.
        kind: an integer, a rate (a number or empty for automatic), a boolean, one of `choices`, or a number of bytes
            (empty for automatic).
        low, high: the range of a number.
        choices: values and their texts.
    """

    key: str
    label: str
    unit: str
    kind: Kind
    explanation: str
    low: float = 0
    high: float = 0
    of_job: bool = False
    choices: tuple[tuple[str, str], ...] = ()


PARAMETERS = (
    Parameter("iters", "Iterations", "steps per block", "whole",
              "Tuning steps for each block. 0 keeps the start.", 0, 100_000),
    Parameter("lr", "Learning rate", "levels", "rate",
              "Initial learning rate of the rounding values. Empty: by the iterations.", 0, 10),
    Parameter("minmax_lr", "Scale rate", "", "rate",
              "Learning rate of the scale of each group. Empty: the learning rate, or by bits with GPTQ.", 0, 10),
    Parameter("low_bit_lr_scale", "Low-bit factor", "times", "rate",
              "Factor on the learning rate in layers of 2 and 3 bits.", 0, 10),
    Parameter("samples", "Samples", "sequences", "whole",
              "Number of calibration samples.", 1, 1_000_000),
    Parameter("seqlen", "Tokens per sample", "tokens", "whole",
              "Sequence length of the samples. Longer samples take more time.", 8, 1_000_000),
    Parameter("batch_size", "Batch size", "samples", "whole",
              "Samples per forward pass. Larger batches need more memory.", 1, 100_000),
    Parameter("accumulate", "Accumulate", "batches", "whole",
              "Gradient accumulation: a larger effective batch in the same memory.", 1, 100_000),
    Parameter("start", "Start", "", "choice",
              "What tuning starts from. With GPTQ, the integers are found first, and tuning adjusts the scales.",
              choices=(("range", "Rounding to nearest"), ("search", "Searched scales"), ("gptq", "GPTQ"))),
    Parameter("learn_integers", "Learn integers", "", "switch",
              "After the start GPTQ, tunes integers of 2 to 4 bits together with the scales. Needs more text."),
    Parameter("end_to_end", "End-to-end steps", "steps", "whole",
              "Steps that tune the scales of all layers and the norms together; needs the start GPTQ.", 0, 100_000),
    Parameter("seed", "Seed", "", "whole",
              "Random seed for the order of the calibration samples.", 0, 2**63 - 1, of_job=True),
    Parameter("low_memory", "Low memory", "", "switch",
              "Keeps activations in 16 bits, in files, and runs one sample at a time. Try a memory limit first.",
              of_job=True),
    Parameter("memory", "Memory limit", "", "size",
              "The run stays below it, slower where it has to, or is refused. Empty: from the free memory.",
              of_job=True),
    Parameter("compile", "torch.compile", "", "switch",
              "Compiles each block with torch.compile; faster for long runs. Needs a C++ compiler on a CPU.",
              of_job=True),
)  # fmt: skip

_JOB_DEFAULTS = {item.name: item.default for item in fields(JobSpec)}


_NEEDS_START = {
    "end_to_end": "Not used: these steps need the start GPTQ.",
    "learn_integers": "Not used: this start tunes the integers in any case.",
}
_ONLY_SCALES = "Not used: after the start GPTQ only the scales are tuned."


def value_of(parameter: Parameter, recipe: Recipe, job: Mapping[str, Any]) -> Any:
    """Return the value of a parameter; `job` holds those that are not part of the recipe."""
    return job[parameter.key] if parameter.of_job else getattr(recipe, parameter.key)


def default_of(parameter: Parameter, base: Recipe) -> Any:
    """Return the default value: that of the recipe `base`, or of a job."""
    return _JOB_DEFAULTS[parameter.key] if parameter.of_job else getattr(base, parameter.key)


def parse(parameter: Parameter, text: str) -> Any:
    """Return the value of `text`. Text that is not a number is returned unchanged, and `check` rejects it."""
    text = text.strip()
    if parameter.kind == "size":
        try:
            return parse_size(text) if text else None
        except BadInput:
            return text
    if parameter.kind == "rate":
        if not text and parameter.key in ("lr", "minmax_lr"):
            return None
        try:
            return float(text.replace(",", "."))
        except ValueError:
            return text
    if _THOUSANDS.fullmatch(text):
        text = re.sub(r"\D", "", text)
    return int(text) if re.fullmatch(r"-?[0-9]{1,25}", text) else text


def check(parameter: Parameter, recipe: Recipe, value: Any) -> None:
    """Check the value of a parameter.

    Raises:
        BadInput: The value is invalid.
    """
    if parameter.of_job:
        JobSpec("model", "output", **{parameter.key: value})
    else:
        replace(recipe, **{parameter.key: value})


def shown(parameter: Parameter, value: Any) -> str:
    """Return the text of a value in the field, which `parse` reads."""
    if value is None:
        return ""
    if parameter.kind == "size":
        return exact_bytes(value)
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def spoken(parameter: Parameter, value: Any) -> str:
    """Return the text of a value in a sentence: `40`, `on`, `automatic`."""
    if parameter.kind == "choice":
        return dict(parameter.choices)[value]
    if isinstance(value, bool):
        return "on" if value else "off"
    return "automatic" if value is None else shown(parameter, value)


def automatic(parameter: Parameter, recipe: Recipe) -> str:
    """Return the value of an empty rate in this recipe; "" for a parameter that cannot be empty or is not used."""
    if parameter.key == "lr" and not unused(parameter, recipe):
        return figure(recipe.learning_rate(4))
    if parameter.key == "minmax_lr":
        return "by bits" if recipe.start == "gptq" else figure(recipe.learning_rate(4))
    return ""


def unused(parameter: Parameter, recipe: Recipe) -> str:
    """Return the reason why a parameter has no effect in this recipe; "" if it has one."""
    if recipe.start == "gptq":
        return _ONLY_SCALES if parameter.key in FOR_ROUNDING and not recipe.learn_integers else ""
    return _NEEDS_START.get(parameter.key, "")


def turned(recipe: Recipe, base: Recipe, key: str, value: Any) -> Recipe:
    """Return a recipe with another value of one parameter.

    A start resets the parameters that it does not use, and sets those that the previous one did not use to the values
    of the recipe `base`; so do fixed integers with the parameters of learned ones.

    Args:
        base: the recipe that was selected.
    """
    changes = {key: value}
    if key == "start" and recipe.start != value and "gptq" in (recipe.start, value):
        source = Recipe() if value == "gptq" else base
        changes |= {name: getattr(source, name) for name in FOR_ROUNDING}
        changes["end_to_end"] = base.end_to_end if value == "gptq" else 0
        changes["learn_integers"] = base.learn_integers and value == "gptq"
    if key == "learn_integers" and not value and recipe.start == "gptq":
        changes |= {name: getattr(Recipe(), name) for name in FOR_ROUNDING}
    return replace(recipe, **changes)


def changed(recipe: Recipe, base: Recipe) -> list[str]:
    """Return the keys of the values that differ from the recipe that was selected."""
    return [
        parameter.key
        for parameter in PARAMETERS
        if not parameter.of_job and getattr(recipe, parameter.key) != getattr(base, parameter.key)
    ]
