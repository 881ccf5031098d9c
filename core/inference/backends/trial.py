"""Test of a backend on a device with a small random layer, before the backend is used.

Drivers, compilers and third-party packages can fail in any way, and a kernel that returns wrong numbers is worse than
none. Each backend passes the function that builds its layers.
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
"""Numbers of rows: decoding, more than one tile of a product, and a long prompt, which may use another kernel."""
TOLERANCE = 0.02
"""Largest error relative to the largest output: bfloat16 rounds by 0.004; a wrong zero point causes a much larger
error."""

_found: dict[tuple[str, str, str], str] = {}


def failure(
    name: str,
    device: Device,
    dtype: torch.dtype,
    build: Callable[[QuantizedLinear, Tensor | None], nn.Module],
    schemes: Sequence[LayerScheme],
) -> str:
    """Compute a layer of each scheme on `device` and return the first failure as one sentence, or "". Never raises.

    Args:
        name: name of the backend; the result is cached by name and device for the life of the process.
        device: device to compute on.
        dtype: dtype of the inputs.
        build: builds the backend's module for a layer and its bias.
        schemes: schemes of the trial layers.
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
                    return f"A trial layer ({scheme.label()}) has a relative error of {error:.2g} on {device.name}."
    except Exception as error:  # noqa: BLE001 - any failure leads to another backend, with the reason in the table
        line = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        return f"A trial layer failed on {device.name}: {line.rstrip('.')}."
    return ""


def random_layer(scheme: LayerScheme, outputs: int, inputs: int, seed: int = 0) -> QuantizedLinear:
    """Return a layer of random integers, zero points and scales of both signs, determined by `seed`."""
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
