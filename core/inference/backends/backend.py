"""What a way to compute linear layers has to say: whether it is here, which layers it takes, and the layer itself.

Plain values and one interface. Imports no torch, so that the table of backends can be made where torch is not loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from core.schemes import LayerScheme

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from core.formats.stored import Stored
    from core.inference.machine import Device


@dataclass(frozen=True)
class LayerFacts:
    """What a backend decides by.

    Attributes:
        name: of the layer.
        outputs, inputs: its shape.
        scheme: bits, group size, symmetry; a block type of GGUF where it has one.
        ordered: whether its inputs are in groups of their own order (GPTQ's `desc_act`).
    """

    name: str
    outputs: int
    inputs: int
    scheme: LayerScheme
    ordered: bool = False


@dataclass(frozen=True)
class Missing:
    """Why a backend cannot be used here at all, as one sentence; the command that would bring it, "" if none would."""

    reason: str
    install: str = ""


@dataclass(frozen=True)
class BackendRow:
    """One line of the table of backends.

    Attributes:
        name: what `--backend` takes; title: what it is, for people.
        usable: on this device at all.
        takes: which layers, in words ("2, 3, 4, 8 bits, groups of 32 to 256").
        why_not: the reason where it is not usable, or why it does not have layers that it could have.
        install: a command that would bring what is missing, or "".
        layers: how many layers of the loaded model it computes; 0 in a table without a model.
    """

    name: str
    title: str
    usable: bool
    takes: str
    why_not: str = ""
    install: str = ""
    layers: int = 0


class Backend(Protocol):
    """A way to compute quantized linear layers."""

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def takes(self) -> str: ...

    def missing(self, device: Device) -> Missing | None:
        """What keeps it from this device, or None where it works. Cheap after the first call; never raises."""

    def refusal(self, facts: LayerFacts, device: Device, dtype: torch.dtype) -> str:
        """Why it cannot compute this layer, as one sentence; "" where it can."""

    def build(self, layer: Stored, bias: Tensor | None, device: Device, dtype: torch.dtype) -> nn.Module:
        """The layer ready to run: takes and gives [..., features] in `dtype`. May free nothing of `layer` itself."""
