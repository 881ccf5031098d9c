"""What is asked of an allocation: a budget, which bits to choose from, and what is fixed already. Plain values."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Literal

from core.bitsmap import Rule
from core.errors import BadInput
from core.model.fused import FusedModules
from core.schemes import BITS, UNTOUCHED, LayerScheme
from core.wording import human

BudgetKind = Literal["bpw", "bytes", "ram"]
KINDS: tuple[BudgetKind, ...] = ("bpw", "bytes", "ram")
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([kmgt]?)(i?)(?:b|bytes?)?\s*\Z", re.IGNORECASE)


@dataclass(frozen=True)
class Budget:
    """What must not be exceeded.

    Attributes:
        kind: `bpw`: bits per weight with scales and zero points, over all layers that could be quantized, those left
            alone at 16; a tied head that a pin gives a copy of its own counts in bytes only. `bytes`: of all tensors
            of the output. `ram`: bytes of memory to run the output, as `core.estimation.goals` counts it: the output,
            one conversation, the program.
    """

    kind: BudgetKind
    value: float

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise BadInput(f"There is no budget of the kind {self.kind!r}.", f"Choose from {', '.join(KINDS)}.")
        if not (math.isfinite(self.value) and self.value > 0):
            raise BadInput(f"A budget of {self.value} is not possible.", "Give a number above zero.")

    def label(self, value: float | None = None) -> str:
        """The budget, or another value of its kind, for people."""
        value = self.value if value is None else value
        return f"{value:.4g} bits a weight" if self.kind == "bpw" else human(value)


@dataclass(frozen=True)
class AllocationRequest:
    """All that an allocation depends on but the model and its table of loss increase.

    Attributes:
        choices: bits to choose from; with 16 among them a layer may be left alone.
        pins: rules of a bits map; what they give is fixed (the last that matches wins, the head by exact name only).
        min_bits: patterns with the fewest bits that a layer may get; of several that match the most bits count.
        fused: layers that share a scheme.
        engine: of `core.formats.engines`, or "": only what it runs is chosen.
        group_size, sym: of all layers that a pin does not give others.
    """

    budget: Budget
    choices: tuple[int, ...] = (2, 3, 4, 8)
    pins: tuple[Rule, ...] = ()
    min_bits: tuple[Rule, ...] = ()
    fused: FusedModules = field(default_factory=FusedModules)
    engine: str = ""
    format_name: str = "auto_round"
    group_size: int = 128
    sym: bool = True

    def __post_init__(self) -> None:
        if not self.choices or set(self.choices) - {*BITS, UNTOUCHED}:
            raise BadInput(f"Bits to choose from are {self.choices}.", "Give some of 2, 3, 4, 8 and 16.")
        if any(rule.bits is None for rule in self.min_bits):
            raise BadInput("A minimum has no number of bits.", "Write PATTERN=BITS.")
        if any(rule.bits is None and rule.group_size is None and rule.sym is None for rule in self.pins):
            raise BadInput("A pin pins nothing.", "Write PATTERN=BITS.")

    def schemes(self) -> tuple[LayerScheme, ...]:
        """The choices as schemes, fewest bits first, each once."""
        return tuple(LayerScheme(bits, self.group_size, self.sym) for bits in sorted(set(self.choices)))


def parse_size(text: str) -> int:
    """Bytes from what people write: `110MB`, `1.5 GB`, `110 MiB`, `110000000`. Units count in thousands, MiB in 1024s.

    Raises:
        BadInput: it is no size.
    """
    match = _SIZE.match(text)
    unit = match[2].lower() if match else ""
    if not match or (match[3] and not unit):
        raise BadInput(f"{text!r} is not a size.", "Write it like 110MB or 1.5GB.")
    size = round(float(match[1]) * (_BINARY[unit] if match[3] else _UNITS[unit]))
    if size < 1:
        raise BadInput(f"{text!r} is not a size.", "Write it like 110MB or 1.5GB.")
    return size
