"""Random quantized layers of every kind, shared by the tests of the backends."""

from __future__ import annotations

import torch
from torch import Tensor

from core.block_types import TYPES
from core.formats.gguf.blocks import SCALE_RANGE, BlockLinear
from core.formats.quantized import QuantizedLinear, natural_groups
from core.formats.stored import StoredLayer
from core.inference.backends.backend import LayerFacts
from core.inference.machine import Device
from core.schemes import LayerScheme

CPU = Device("cpu", "cpu", "Some processor", 1 << 40, 1 << 40)
CARD = Device("cuda:0", "cuda", "Some card", 1 << 40, 1 << 40)
PLAIN = [LayerScheme(bits, group, sym) for bits in (2, 3, 4, 8) for group in (32, 64, -1) for sym in (True, False)]
BLOCKS = [LayerScheme.of_type(name) for name in TYPES]


def layer(
    scheme: LayerScheme, outputs: int = 48, inputs: int = 256, *, act_order: bool = False, seed: int = 0
) -> StoredLayer:
    """Return a random layer with weights of realistic size; `act_order` assigns the inputs to groups at random."""
    generator = torch.Generator().manual_seed(seed)
    ints = torch.randint(0, scheme.levels, (outputs, inputs), generator=generator, dtype=torch.uint8)
    if scheme.type:
        return _block(scheme, ints, generator)
    shape = (outputs, scheme.groups(inputs))
    scales = (torch.rand(shape, generator=generator) + 0.5).mul_(0.1 / scheme.levels).to(torch.float16)
    zeros = torch.full(shape, scheme.levels // 2, dtype=torch.uint8)
    if not scheme.sym:
        zeros = torch.randint(0, scheme.levels, shape, generator=generator, dtype=torch.uint8)
    g_idx = natural_groups(scheme, inputs)[torch.randperm(inputs, generator=generator)] if act_order else None
    return QuantizedLinear("model.layers.0.mlp.up_proj", scheme, ints, scales, zeros, g_idx)


def _block(scheme: LayerScheme, ints: Tensor, generator: torch.Generator) -> BlockLinear:
    kind = TYPES[scheme.type]
    outputs, inputs = ints.shape

    def halves(size: float) -> Tensor:
        values = torch.rand(outputs, inputs // kind.block, generator=generator) + 0.5
        return values.mul_(size / scheme.levels).to(torch.float16)

    def codes() -> Tensor:
        low, high = SCALE_RANGE[kind.name]
        shape = (outputs, inputs // kind.group)
        return torch.randint(max(low, -128), min(high, 127) + 1, shape, generator=generator).to(torch.int8)

    nested = kind.nested
    return BlockLinear(
        "model.layers.0.mlp.up_proj",
        scheme,
        ints,
        halves(0.1 / 32 if nested else 0.1),
        None if kind.sym else (halves(0.1 / 32) if nested else -halves(0.5)),
        codes() if nested else None,
        codes() if nested and not kind.sym else None,
    )


def facts(stored: StoredLayer) -> LayerFacts:
    """Return the facts of a stored layer."""
    outputs, inputs = stored.ints.shape
    return LayerFacts(stored.name, outputs, inputs, stored.scheme, getattr(stored, "g_idx", None) is not None)


def apart(found: Tensor, exact: Tensor) -> float:
    """Return the relative RMS difference."""
    return float((found.float() - exact.float()).norm() / exact.float().norm())
