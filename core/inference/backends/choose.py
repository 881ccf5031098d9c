"""Which backend computes which layer, in order of measured speed, and why the others do not.

The order for a CPU is measured: one row through a layer of 2048x5632 weights, 4 bits, groups of 128, one thread of a
Zen 4: int4pack 0.6 ms, ark 1.4, dense 2.7 (float32) or 2.1 (bfloat16), portable 4.6, ipex 87 (its fast path does not
run there). 8 bits: int4pack 1.3, ark 2.0. For cards the order is that of the makers' own figures, to be measured with
tests/benchmarks/gpu_kernels.py. Imports no torch itself; backends are imported when they are asked, and
one that cannot be imported is a row with the reason. Knows no model.
"""

from __future__ import annotations

import functools
import importlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from core.errors import BadInput
from core.inference.backends import llama_cpp
from core.inference.backends.backend import Backend, BackendRow, LayerFacts

if TYPE_CHECKING:
    import torch

    from core.inference.machine import Device

AUTO: Final = "auto"
NATIVE: Final = "native"
WHOLE: Final = llama_cpp.NAME
"""The backend that runs whole files and no single layer."""

_PLACES: Final = {
    "native": ("native", "NativeBackend"),
    "int4pack": ("int4pack", "Int4PackBackend"),
    "ark": ("ark", "ArkBackend"),
    "ipex": ("ipex", "IpexBackend"),
    "marlin": ("gptqmodel", "MarlinBackend"),
    "exllama": ("gptqmodel", "ExllamaBackend"),
    "tinygemm": ("tinygemm", "TinygemmBackend"),
    "triton": ("triton", "TritonBackend"),
    "dense": ("portable", "DenseBackend"),
    "portable": ("portable", "PortableBackend"),
}
"""Name -> module in this folder and class."""

_ORDERS: Final = {
    "cpu": ("native", "int4pack", "ark", "dense", "portable", "ipex"),
    "cuda": ("marlin", "exllama", "tinygemm", "triton", "dense", "portable"),
    "xpu": ("tinygemm", "triton", "ark", "dense", "portable"),
}
"""Kind of device -> backends, the fastest first for single tokens. Others are asked last, for their reason."""

NAMES: Final = (AUTO, *_PLACES, WHOLE)
"""What `--backend` takes."""

_ROOM: Final = 0.8
"""Part of the free memory that weights kept as floats may take; the rest is for the cache and other programs."""


@dataclass
class Choice:
    """What computes the quantized layers of one model on one device.

    Attributes:
        candidates: name of a layer -> names of the backends that take it, the best first; the last always works.
        refusals: name of a backend -> its reasons and how many layers each concerns.
        taken: name of a backend -> layers that it got, as they were built.
        failed: name of a usable backend that turned out not to work -> why.
    """

    device: Device
    wanted: str
    candidates: Mapping[str, tuple[str, ...]]
    refusals: Mapping[str, Counter[str]]
    taken: Counter[str] = field(default_factory=Counter)
    failed: dict[str, str] = field(default_factory=dict)

    def rows(self, reasons: Mapping[str, str]) -> tuple[BackendRow, ...]:
        """The table with this model in it; `reasons` say why backends that run whole models do not run this one."""
        return tuple(self._row(row, reasons.get(row.name, "")) for row in table(self.device))

    def _row(self, row: BackendRow, reason: str) -> BackendRow:
        layers = self.taken[row.name]
        if row.name in self.failed:
            return replace(row, usable=layers > 0, why_not=self.failed[row.name], layers=layers)
        if not row.usable:
            return row
        if reason:
            return replace(row, why_not=reason, layers=layers)
        reasons = self.refusals.get(row.name, Counter())
        why = ""
        if reasons:
            reason, count = reasons.most_common(1)[0]
            total = len(self.candidates)
            why = _sentence(reason if count == total else f"{count} of {total} layers: {reason}")
        elif not layers and self.taken and row.name != WHOLE:
            why = f"{'Chosen here' if self.wanted != AUTO else 'Faster here'}: {', '.join(self._used())}."
        return replace(row, why_not=why, layers=layers)

    def _used(self) -> list[str]:
        return [name for name, count in self.taken.most_common() if count]


def made_for(kind: str) -> tuple[str, ...]:
    """Names of the backends that could run on a kind of device (`cpu`, `cuda`, `xpu`), the fastest first."""
    return (*_ORDERS.get(kind, _ORDERS["cpu"]), WHOLE)


def table(device: Device) -> tuple[BackendRow, ...]:
    """All backends, those of this kind of device first and in their order, with what keeps each from the device."""
    rows = [_missing_row(name, device) for name in _ordered(device.kind, AUTO)]
    problem = llama_cpp.missing(device)
    reason, install = (problem.reason, problem.install) if problem else ("", "")
    rows.append(BackendRow(WHOLE, llama_cpp.TITLE, problem is None, llama_cpp.TAKES, reason, install))
    return tuple(rows)


def whole_rows(device: Device, name: str, layers: int, reasons: Mapping[str, str]) -> tuple[BackendRow, ...]:
    """The table where one backend runs the whole model, with all its layers."""
    found = []
    for row in table(device):
        why = reasons.get(row.name) or row.why_not
        if row.name == name:
            found.append(replace(row, layers=layers, why_not=""))
        elif row.usable and row.name != WHOLE:
            found.append(replace(row, why_not=why or f"{name} runs the whole model."))
        else:
            found.append(replace(row, why_not=why))
    return tuple(found)


def choose(
    facts: Sequence[LayerFacts],
    device: Device,
    dtype: torch.dtype,
    wanted: str = AUTO,
) -> Choice:
    """The backends of each layer.

    Args:
        wanted: a backend that goes before all others; layers that it cannot take go to the next that can.

    Raises:
        BadInput: there is no backend `wanted`.
    """
    check_name(wanted)
    usable = [name for name in _ordered(device.kind, wanted) if backend(name).missing(device) is None]
    refusals: dict[str, Counter[str]] = {name: Counter() for name in usable}
    candidates: dict[str, tuple[str, ...]] = {}
    known: dict[LayerFacts, tuple[str, ...]] = {}
    for layer in facts:
        kind = replace(layer, name="")  # a model has hundreds of layers and a handful of kinds
        able = known.get(kind)
        if able is None:
            known[kind] = able = tuple(name for name in usable if not backend(name).refusal(kind, device, dtype))
        for name in usable:
            if name not in able:
                refusals[name][backend(name).refusal(kind, device, dtype)] += 1
        candidates[layer.name] = able
    if wanted != "dense" and _too_large(facts, candidates, device, dtype):
        note = "The weights as floats would not fit into the free memory."
        for name, able in candidates.items():
            if able[0] == "dense":
                candidates[name] = ("portable", *(other for other in able if other != "portable"))
                refusals["dense"][note] += 1
    return Choice(device, wanted, candidates, refusals)


def backend(name: str) -> Backend:
    """A backend by its name.

    Raises:
        KeyError: there is none.
    """
    return _load(name)


def check_name(wanted: str) -> None:
    """Refuse the name of a backend that does not exist.

    Raises:
        BadInput: in one sentence.
    """
    if wanted not in NAMES:
        raise BadInput(f"There is no backend {wanted[:60]!r}.", f"Choose from {', '.join(NAMES)}.")


@functools.cache
def _load(name: str) -> Backend:
    module, cls = _PLACES[name]
    found: Backend = getattr(importlib.import_module(f"core.inference.backends.{module}"), cls)()
    return found


def _ordered(kind: str, wanted: str) -> tuple[str, ...]:
    order = _ORDERS.get(kind, _ORDERS["cpu"])
    first = (wanted,) if wanted in _PLACES else ()
    return tuple(dict.fromkeys((*first, *order, *_PLACES)))


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _missing_row(name: str, device: Device) -> BackendRow:
    one = backend(name)
    problem = one.missing(device)
    reason, install = (problem.reason, problem.install) if problem else ("", "")
    return BackendRow(name, one.title, problem is None, one.takes, reason, install)


def _too_large(
    facts: Sequence[LayerFacts], candidates: Mapping[str, tuple[str, ...]], device: Device, dtype: torch.dtype
) -> bool:
    """Whether the layers that would go to `dense` are larger than the memory that is free for them."""
    weights = sum(layer.outputs * layer.inputs for layer in facts if candidates[layer.name][0] == "dense")
    return bool(device.total_memory) and weights * dtype.itemsize > _ROOM * device.free_memory
