"""Speed of quantized linear layers on a CUDA or XPU device: the Triton kernels, torch's product and other backends.

Run manually on a machine with such a device:

    python -m tests.benchmarks.gpu_kernels [--device cuda:0] [--bits 2 3 4 8] [--group 128] [--rows 1 4 16 64 256 1024]
    python -m tests.benchmarks.gpu_kernels --routes      # to choose FEW and MANY of triton_layer.py

A line per shape, bits and rows: microseconds of each backend (median), its ratio to torch's bfloat16 product, bytes of
weights per second, and the largest error relative to the dequantized float32 product. Several copies of a layer are
used in turn, so that the weights do not fit into a cache. The backends alternate, too.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from core.inference.backends.backend import Backend, LayerFacts
from core.inference.backends.gptqmodel import ExllamaBackend, MarlinBackend
from core.inference.backends.portable import PortableBackend, dense_linear
from core.inference.backends.tinygemm import TinygemmBackend
from core.inference.backends.trial import random_layer
from core.inference.backends.triton import TritonBackend
from core.inference.devices import choose
from core.inference.machine import Device
from core.schemes import LayerScheme

SHAPES = ((2048, 2048), (5632, 2048), (2048, 5632), (14336, 4096), (4096, 14336))
"""Outputs and inputs: a model of 1.1B and one of 8B."""
COLD = 200 << 20
"""Bytes of weights that take turns: more than any device's cache holds."""
ROUNDS = 15
BACKENDS: tuple[Backend, ...] = (
    TritonBackend(),
    TinygemmBackend(),
    MarlinBackend(),
    ExllamaBackend(),
    PortableBackend(),
)


def main() -> None:
    """Print the table."""
    options = parsed()
    device = choose(options.device)
    print(f"{device.name}, torch {torch.__version__}")
    dtype = torch.bfloat16
    usable = []
    for backend in BACKENDS:
        missing = backend.missing(device)
        if missing is None:
            usable.append(backend)
        else:
            print(f"  without {backend.name}: {missing.reason} {missing.install}")
    for outputs, inputs in SHAPES[: options.shapes]:
        for bits in options.bits:
            scheme = LayerScheme(bits, options.group, not options.asym)
            if options.routes:
                routes(device, scheme, outputs, inputs, options.rows, dtype)
            else:
                compare(device, usable, scheme, (outputs, inputs), options.rows, dtype)


def parsed() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--bits", type=int, nargs="+", default=[4, 2, 3, 8])
    parser.add_argument("--group", type=int, default=128)
    parser.add_argument("--asym", action="store_true")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 16, 64, 256, 512, 1024])
    parser.add_argument("--shapes", type=int, default=len(SHAPES), help="number of shapes")
    parser.add_argument(
        "--routes", action="store_true", help="measure each kernel of the Triton layer at every number of rows"
    )
    return parser.parse_args()


def compare(
    device: Device,
    usable: list[Backend],
    scheme: LayerScheme,
    shape: tuple[int, int],
    row_counts: list[int],
    dtype: torch.dtype,
) -> None:
    """Measure all backends that support the layer, at each number of rows."""
    outputs, inputs = shape
    stored = random_layer(scheme, outputs, inputs)
    facts = LayerFacts("bench", outputs, inputs, scheme)
    exact = stored.dequantize()
    sides: dict[str, list[nn.Module]] = {}
    copies = max(1, min(24, COLD // (outputs * inputs * 2)))
    sides["torch"] = [dense_linear(exact.to(device.id, dtype), None) for _ in range(copies)]
    for backend in usable:
        takes = torch.float16 if backend.name == "exllama" else dtype
        if not backend.refusal(facts, device, takes):
            count = max(1, min(24, COLD // stored.scheme.weight_bytes(inputs, outputs)))
            sides[backend.name] = [backend.build(stored, None, device, takes) for _ in range(count)]
    for rows in row_counts:
        x = torch.randn(rows, inputs).to(device.id, dtype)
        expected = x.float() @ exact.to(device.id).T
        calls = {name: turns(layers, x) for name, layers in sides.items()}
        errors = {
            name: float((call().float() - expected).abs().max() / expected.abs().max()) for name, call in calls.items()
        }
        took = timed(device, calls)
        print(f"{outputs}x{inputs} {scheme.label()} rows {rows}")
        for name, seconds in took.items():
            size = sum(part.nbytes for part in (*sides[name][0].buffers(), *sides[name][0].parameters()))
            print(
                f"  {name:10} {seconds * 1e6:9.1f} us  {took['torch'] / seconds:5.2f} x torch  "
                f"{size / seconds / 1e9:7.1f} GB/s  error {errors[name]:.1e}"
            )


def routes(
    device: Device, scheme: LayerScheme, outputs: int, inputs: int, row_counts: list[int], dtype: torch.dtype
) -> None:
    """Measure each of the three kernels of the Triton layer at every number of rows."""
    from core.inference.backends.triton_layer import TritonLinear

    stored = random_layer(scheme, outputs, inputs)
    count = max(1, min(24, COLD // scheme.weight_bytes(inputs, outputs)))
    layers = [TritonLinear(stored, None, device.id, dtype) for _ in range(count)]
    for rows in row_counts:
        x = torch.randn(rows, inputs).to(device.id, dtype)
        ways: dict[str, Callable[[Any, torch.Tensor], torch.Tensor]] = {
            "few": lambda layer, x: layer._product(x, True),
            "many": lambda layer, x: layer._product(x, False),
            "whole": lambda layer, x: nn.functional.linear(x, layer._ordered(x.dtype)),
        }
        if rows > 64:
            del ways["few"]
        if rows > 256:
            del ways["many"]
        took = timed(device, {name: turns(layers, x, way) for name, way in ways.items()})
        line = "  ".join(f"{name} {seconds * 1e6:8.1f} us" for name, seconds in took.items())
        print(f"{outputs}x{inputs} {scheme.label()} rows {rows:5}  {line}")


def turns(
    layers: list[Any], x: torch.Tensor, way: Callable[[Any, torch.Tensor], torch.Tensor] | None = None
) -> Callable[[], torch.Tensor]:
    """Return a function that calls the next copy of a layer each time."""
    place = [0]

    def call() -> torch.Tensor:
        layer = layers[place[0] % len(layers)]
        place[0] += 1
        with torch.inference_mode():
            return layer(x) if way is None else way(layer, x)

    return call


def timed(device: Device, calls: dict[str, Callable[[], torch.Tensor]]) -> dict[str, float]:
    """Return the seconds per call of each side: the median of ROUNDS alternating rounds of 20 calls."""
    wait = {"cuda": torch.cuda.synchronize, "xpu": torch.xpu.synchronize}.get(device.kind, lambda: None)
    for call in calls.values():
        for _ in range(3):  # compiles, tries tile sizes
            call()
    wait()
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            started = time.perf_counter()
            for _ in range(20):
                call()
            wait()
            found[name].append((time.perf_counter() - started) / 20)
    return {name: statistics.median(values) for name, values in found.items()}


if __name__ == "__main__":
    main()
