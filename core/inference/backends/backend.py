"""The interface of a backend for quantized linear layers, and the values that it exchanges.

Does not import torch, so that the table of backends can be built without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from core.schemes import LayerScheme

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from core.formats.stored import StoredLayer
    from core.inference.machine import Device


@dataclass(frozen=True)
class LayerFacts:
    """Properties of a layer that determine which backends support it.

    Attributes:
        name: name of the layer.
        outputs, inputs: shape of the weight.
        scheme: bits, group size and symmetry, or a GGUF block type.
        act_order: whether the layer has act-order (GPTQ's `desc_act`).
    """

    name: str
    outputs: int
    inputs: int
    scheme: LayerScheme
    act_order: bool = False


NO_CODE_BOOK = "GGUF types with a code book are not supported"
"""Reason why a backend that computes with evenly spaced levels does not support a layer."""


@dataclass(frozen=True)
class MissingRequirement:
    """The reason, as one sentence, why a backend is unavailable, and the command that installs it ("" if none does)."""

    reason: str
    install: str = ""


@dataclass(frozen=True)
class BackendRow:
    """A row of the table of backends.

    Attributes:
        name: identifier, as accepted by `--backend`.
        title: name for display.
        usable: whether the backend runs on the device.
        takes: description of the supported layers ("2, 3, 4, 8 bits, groups of 32 to 256").
        why_not: the reason why it is not usable, or why it does not compute all layers of the model; "" otherwise.
        install: a command that installs it, or "".
        layers: number of layers of the loaded model that it computes; 0 without a model.
    """

    name: str
    title: str
    usable: bool
    takes: str
    why_not: str = ""
    install: str = ""
    layers: int = 0


class Backend(Protocol):
    """An implementation of quantized linear layers."""

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def takes(self) -> str: ...

    def missing(self, device: Device) -> MissingRequirement | None:
        """Return the reason why the backend does not run on the device, or None. Cached; never raises."""

    def refusal(self, facts: LayerFacts, device: Device, dtype: torch.dtype) -> str:
        """Return the reason, as one sentence, why the backend does not support the layer, or ""."""

    def build(self, layer: StoredLayer, bias: Tensor | None, device: Device, dtype: torch.dtype) -> nn.Module:
        """Build a module with inputs and outputs [..., features] in `dtype`. Must not modify `layer`."""
