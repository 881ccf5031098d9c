"""Recipes: named sets of tuning hyper-parameters, loaded from resources/recipes. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from core.errors import BadInput
from core.files import read_json

RESOURCES = Path(__file__).resolve().parent.parent / "resources"
STARTS = ("range", "search", "gptq")
FOR_ROUNDING = ("lr", "low_bit_lr_scale")
"""Settings of the integers, which have no effect if only scales are tuned."""
_LEARNED_RATE = 0.6
"""Learning rate of learned integers times the number of steps. 1, as in SignRound, gave errors up to 3 % larger, and
0.4 no smaller ones."""
_SCALE_RATE = {2: 1.0, 3: 0.5, 4: 0.3, 5: 0.1, 6: 0.07, 8: 0.0}
"""Learning rate of the factor of a learned scale times the number of steps, by bits. At 8 bits, no rate lowered the
error of a block after the start by more than 1 %, so the scales stay those of the start."""
NAMES = (
    "quick", "light", "default", "best", "gptq", "rtn", "opt-rtn", "autoround-light", "autoround", "autoround-best",
)  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters of tuning.

    Attributes:
        name: name of the recipe on which this one is based.
        purpose: description in one sentence.
        iters: SignSGD steps per block; 0 keeps the start.
        lr: initial learning rate of the rounding offsets, or of learned integers, in levels; None for 1 / iters, or
            0.6 / iters for learned integers.
        minmax_lr: initial learning rate of the range factors, or of the scales with the start "gptq"; None for lr, or
            for a rate by bits.
        samples, seqlen: number of calibration sequences, and tokens per sequence.
        batch_size: sequences per micro-batch; accumulate: micro-batches per step.
        start: what tuning starts from. "range": rounding to nearest in the range of each group; "search": the same
            with a searched scale (symmetric layers; opt-RTN when iters is 0); "gptq": integers from error feedback,
            least-squares scales and coordinate descent (`core.quant.start`), of which the scales are tuned.
        learn_integers: after the start "gptq", integers of 2 and 3 bits are tuned together with the scales
            (`core.quant.latent_grid`). It needs more text than the scales alone.
        end_to_end: steps after the last block in which the scales of all layers and the norms are learned together, on
            the KL divergence to the original model (`core.quant.end_to_end`); needs the start "gptq". 0 for none.
        low_bit_lr_scale: factor of lr for layers with 3 bits or fewer (2 in the recipe `autoround-best`).
    """

    name: str = "default"
    purpose: str = ""
    iters: int = 100
    lr: float | None = None
    minmax_lr: float | None = None
    samples: int = 128
    seqlen: int = 512
    batch_size: int = 2
    accumulate: int = 1
    start: str = "gptq"
    learn_integers: bool = False
    end_to_end: int = 0
    low_bit_lr_scale: float = 1.0

    def __post_init__(self) -> None:
        _whole("iterations", self.iters, 0, 100_000)
        _whole("samples", self.samples, 1, 1_000_000)
        _whole("seqlen", self.seqlen, 8, 1_000_000)
        _whole("batch size", self.batch_size, 1, 100_000)
        _whole("accumulate", self.accumulate, 1, 100_000)
        _whole("end-to-end steps", self.end_to_end, 0, 100_000)
        for label, value in (
            ("lr", self.lr),
            ("minmax lr", self.minmax_lr),
            ("low-bit lr scale", self.low_bit_lr_scale),
        ):
            number = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 10
            if value is not None and not (number and math.isfinite(value)):
                raise BadInput(f"{label} {value!r} is not possible.", "Choose a number above 0 and at most 10.")
        if self.start not in STARTS:
            raise BadInput(f"start {self.start!r} is not possible.", f"Choose one of {', '.join(STARTS)}.")
        if self.end_to_end and self.start != "gptq":
            raise BadInput(
                f'End-to-end steps need the start "gptq", but the start is {self.start!r}.',
                "Use a recipe with that start, such as gptq or default, or no such steps (--end-to-end 0).",
            )
        if not isinstance(self.learn_integers, bool):
            raise BadInput(f"learn integers {self.learn_integers!r} is not possible.", "Choose true or false.")
        if self.learn_integers and self.start != "gptq":
            raise BadInput(
                f'Learned integers need the start "gptq", but the start is {self.start!r}.',
                "Use --fixed-integers, or a recipe with that start, such as light or default.",
            )
        if self.start == "gptq" and not self.learn_integers:
            for name in FOR_ROUNDING:
                if getattr(self, name) != getattr(type(self), name):
                    raise BadInput(
                        f"{name} has no effect: with the start gptq, only the scales are tuned.",
                        "Use --minmax-lr, the learning rate of the scales, or --learn-integers.",
                    )

    def learning_rate(self, bits: int) -> float:
        """Return the initial learning rate of the rounding offsets or learned integers of a layer with `bits` bits."""
        usual = _LEARNED_RATE if self.learn_integers else 1.0
        rate = self.lr if self.lr is not None else usual / max(1, self.iters)
        return rate * (self.low_bit_lr_scale if bits <= 3 else 1.0)

    def range_rate(self, bits: int) -> float:
        """Return the initial learning rate of the factors of ranges or scales of a layer with `bits` bits; 0: fixed."""
        if self.minmax_lr is not None:
            return self.minmax_lr
        return _SCALE_RATE[bits] / max(1, self.iters) if self.start == "gptq" else self.learning_rate(bits)

    @property
    def reads_text(self) -> bool:
        """True if the calibration text has an effect."""
        return self.iters > 0 or self.start != "range"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def load(name: str, **overrides: Any) -> Recipe:
    """Load the recipe `name` (or the file at that path), with the overrides that are not None.

    Raises:
        BadInput: there is no such recipe, a key is unknown, or a value is out of range.
    """
    path = RESOURCES / "recipes" / f"{name}.json" if name in NAMES else Path(name)
    if not path.is_file():
        raise BadInput(
            f"There is no recipe {name!r}.", f"Choose one of {', '.join(NAMES)}, or the path of a recipe file."
        )
    recipe = from_json(read_json(path, unique=True))
    return replace(recipe, **{key: value for key, value in overrides.items() if value is not None})


def usual() -> Recipe:
    """Return the recipe of a job for which none was selected."""
    return load("default")


def from_json(value: Any) -> Recipe:
    """A recipe from its JSON value."""
    known = {f.name for f in fields(Recipe)}
    if not isinstance(value, dict) or set(value) - known:
        extra = sorted(set(value) - known) if isinstance(value, dict) else ["not an object"]
        raise BadInput(
            f"The recipe has something unknown: {', '.join(extra)}.", f"Known are {', '.join(sorted(known))}."
        )
    try:
        return Recipe(**value)
    except TypeError as error:
        raise BadInput(f"The recipe has a value of the wrong kind: {error}.", "Correct the recipe file.") from error


def _whole(label: str, value: Any, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise BadInput(f"{label} {value!r} is not possible.", f"Choose a whole number from {low} to {high}.")
