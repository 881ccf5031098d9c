"""A small layer computed on a device, once, to see whether a backend does there what it promises.

Drivers, compilers and other people's packages fail in every way there is, and a kernel that gives wrong numbers is
worse than none. Knows no backend: each gives the function that builds its layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from core.schemes import LayerScheme

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from core.formats.quantized import QuantizedLinear
    from core.inference.machine import Device

OUTPUTS, INPUTS = 256, 512
ROWS = (1, 40, 300)
"""One row, as when text is written; more than a tile of a matrix product has; a long prompt, which goes other ways."""
TOLERANCE = 0.02
"""Largest error relative to the largest output: bfloat16 rounds by 0.004, a wrong zero point is off by much more."""

_found: dict[tuple[str, str, str], str] = {}


def failure(
    name: str,
    device: Device,
    dtype: torch.dtype,
    build: Callable[[QuantizedLinear, Tensor | None], nn.Module],
    schemes: Sequence[LayerScheme],
) -> str:
    """What goes wrong with a layer of each scheme on `device`, as one sentence; "" where nothing does. Never raises.

    Asked once for each name and device; the answer is kept for the life of the process.
    """
    key = (name, device.id, device.name)
    if key not in _found:
        _found[key] = _try(device, dtype, build, schemes)
    return _found[key]


def _try(
    device: Device,
    dtype: torch.dtype,
    build: Callable[[QuantizedLinear, Tensor | None], nn.Module],
    schemes: Sequence[LayerScheme],
) -> str:
    import torch

    try:
        for scheme in schemes:
            layer = random_layer(scheme, OUTPUTS, INPUTS)
            bias = torch.linspace(-1, 1, OUTPUTS)
            built = build(layer, bias)
            for rows in ROWS:
                x = torch.randn(rows, INPUTS, generator=torch.Generator().manual_seed(rows)).to(dtype)
                with torch.inference_mode():
                    y = built(x.to(device.id)).to("cpu", torch.float32)
                expected = torch.nn.functional.linear(x.to(torch.float32), layer.dequantize(), bias)
                error = float((y - expected).abs().max() / expected.abs().max())
                if not error <= TOLERANCE:
                    return f"A trial layer ({scheme.label()}) came out wrong by {error:.2g} on {device.name}."
    except Exception as error:  # noqa: BLE001 - whatever it is, another backend takes over and the table says why
        line = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        return f"A trial layer failed on {device.name}: {line.rstrip('.')}."
    return ""


def random_layer(scheme: LayerScheme, outputs: int, inputs: int, seed: int = 0) -> QuantizedLinear:
    """A layer of random integers, scales of both signs and zero points, always the same for a seed."""
    import torch

    from core.formats.quantized import QuantizedLinear

    generator = torch.Generator().manual_seed(seed)
    shape = (outputs, scheme.groups(inputs))
    ints = torch.randint(0, scheme.levels, (outputs, inputs), dtype=torch.uint8, generator=generator)
    scales = (torch.rand(shape, generator=generator) + 0.5) * 0.02
    scales *= torch.where(torch.rand(shape, generator=generator) < 0.5, -1.0, 1.0)
    zeros = torch.randint(0, scheme.levels, shape, dtype=torch.uint8, generator=generator)
    if scheme.sym:
        zeros.fill_(scheme.levels // 2)
    return QuantizedLinear("trial", scheme, ints, scales.to(torch.float16), zeros)
