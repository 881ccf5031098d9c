"""The input of an allocation: budget, bits to choose from, pins, minimums and the target engine."""

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
    """An upper limit of the size of the output.

    Attributes:
        kind: `bpw`: average bits per weight with scales and zero points, over all layers that can be quantized, where
            layers that are not quantized count 16 bits. A tied output layer that a pin turns into a separate one does
            not count. `bytes`: bytes of all tensors of the output. `ram`: bytes of memory to run the output, as in
            `core.estimation.goals`: the output, one conversation and the program.
        value: The limit.
    """

    kind: BudgetKind
    value: float

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise BadInput(f"There is no budget of the kind {self.kind!r}.", f"Choose from {', '.join(KINDS)}.")
        if not (math.isfinite(self.value) and self.value > 0):
            raise BadInput(f"A budget of {self.value} is not possible.", "Give a number above zero.")

    def label(self, value: float | None = None) -> str:
        """Format the budget, or another value of its kind, with its unit."""
        value = self.value if value is None else value
        return f"{value:.4g} bits per weight" if self.kind == "bpw" else human(value)


@dataclass(frozen=True)
class AllocationRequest:
    """The settings of an allocation, except for the model and its sensitivity table.

    Attributes:
        choices: Bits to choose from; 16 means that a layer may stay unquantized.
        pins: Rules of a bits map whose keys are fixed. The last match wins; the output layer matches by exact name
            only.
        min_bits: Rules whose bits are the minimum of the layers that they match. The highest match wins.
        fused: The kinds of layers that share a scheme.
        engine: Name of a target engine of `core.formats.engines`, or "". Only schemes that it supports are chosen.
        format_name: Name of the output format.
        group_size, sym: Group size and symmetry of all layers for which no pin sets them.

    Raises:
        BadInput: A value is out of range.
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
            raise BadInput(f"The bits to choose from cannot be {self.choices}.", "Choose from 2, 3, 4, 8 and 16.")
        if any(rule.bits is None for rule in self.min_bits):
            raise BadInput("A minimum has no number of bits.", "Write it as PATTERN=BITS.")
        if any(rule.bits is None and rule.group_size is None and rule.sym is None for rule in self.pins):
            raise BadInput("A pin sets neither bits nor group size nor symmetry.", "Write it as PATTERN=BITS.")

    def schemes(self) -> tuple[LayerScheme, ...]:
        """Return the choices as schemes without duplicates, the fewest bits first."""
        return tuple(LayerScheme(bits, self.group_size, self.sym) for bits in sorted(set(self.choices)))


def parse_size(text: str) -> int:
    """Return the bytes of a size such as `110MB`, `1.5 GB`, `110 MiB` or `110000000`.

    MB is 1000^2 bytes and MiB 1024^2 bytes, and accordingly for k, G and T.

    Raises:
        BadInput: The text is not a size.
    """
    match = _SIZE.match(text)
    unit = match[2].lower() if match else ""
    if not match or (match[3] and not unit):
        raise BadInput(f"{text!r} is not a size.", "Write it for example as 110MB or 1.5GB.")
    size = round(float(match[1]) * (_BINARY[unit] if match[3] else _UNITS[unit]))
    if size < 1:
        raise BadInput(f"{text!r} is not a size.", "Write it for example as 110MB or 1.5GB.")
    return size
