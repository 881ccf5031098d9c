"""What a measurement of sensitivity depends on, and which measures there are. Knows no torch.

All look at one layer at a time, with every other layer untouched, and see weights that are rounded to nearest. Held
against the divergence that one layer at 2 bits really causes (61 layers of SmolLM2-135M, logarithms correlated):
`fisher` 0.91 and of the right size (median ratio 0.9), `first-order` 0.82 and 100 times too large, `output` 0.27.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from core.errors import BadInput
from core.schemes import LayerScheme


@dataclass(frozen=True)
class Measure:
    """One way to predict loss increase: its name, its name for people, what it does in a sentence, and the unit of its
    figures ("" for none)."""

    name: str
    title: str
    about: str
    unit: str = ""


MEASURES = (
    Measure(
        "fisher",
        "Effect on the predictions",
        "How far each layer's error moves what the model predicts.",
        "nats a token",
    ),
    Measure("first-order", "First-order loss", "What AutoScheme uses: gradient of the loss times weight error."),
    Measure("output", "Layer outputs (quick)", "How much each layer's own output changes; one pass, no gradients."),
)
DEFAULT = MEASURES[0].name

_FORMULA_VERSION = 2
"""Changed with the arithmetic, so that no table of an older one is taken for its own."""


@dataclass(frozen=True)
class AnalysisSpec:
    """All that a table of loss increase depends on.

    Attributes:
        model: a folder, `.gguf` file, Hub id or `demo`.
        schemes: the quantized candidates.
        calibration, samples, seqlen, seed: the text, as in a run.
    """

    model: str
    schemes: tuple[LayerScheme, ...]
    measure: str = DEFAULT
    calibration: str = "builtin"
    samples: int = 16
    seqlen: int = 256
    seed: int = 42
    device: str = "auto"

    def __post_init__(self) -> None:
        known = [measure.name for measure in MEASURES]
        if self.measure not in known:
            raise BadInput(f"There is no measure {self.measure!r}.", f"Choose from {', '.join(known)}.")
        if not self.schemes or not all(scheme.quantized for scheme in self.schemes):
            raise BadInput("Nothing to measure: no bits to choose from.", "Give at least one of 2, 3, 4 and 8 bits.")
        if self.samples < 1 or self.seqlen < 32:
            raise BadInput("Sensitivity needs at least 1 sample of 32 tokens.", "Give more text.")

    def key(self, stamp: str) -> str:
        """Under what the result is kept; `stamp` stands for the files of model and text."""
        values = {**asdict(self), "stamp": stamp, "formulas": _FORMULA_VERSION}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:24]
