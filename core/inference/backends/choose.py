"""Choice of the backend for each layer, in order of speed, with the reasons why the other backends are not used.

The order on a CPU is measured with one row, 2048x5632 weights, 4 bits, groups of 128 and one thread of a Zen 4:
int4pack 0.6 ms, ark 1.4 ms, dense 2.7 ms (float32) or 2.1 ms (bfloat16), portable 4.6 ms, ipex 87 ms (its fast path
does not run there). With 8 bits: int4pack 1.3 ms, ark 2.0 ms. On accelerators the order follows the figures published
by the kernels' authors; tests/benchmarks/gpu_kernels.py measures them. Does not import torch; backends are imported on
first use.
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
"""The backend that runs whole files, not single layers."""

_CLASSES: Final = {
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
"""Name -> module in this package and class."""

_ORDERS: Final = {
    "cpu": ("native", "int4pack", "ark", "dense", "portable", "ipex"),
    "cuda": ("marlin", "exllama", "tinygemm", "triton", "dense", "portable"),
    "xpu": ("tinygemm", "triton", "ark", "dense", "portable"),
}
"""Kind of device -> backends in order of decode speed. The others follow and only contribute their reasons."""

NAMES: Final = (AUTO, *_CLASSES, WHOLE)
"""Names accepted by `--backend`."""

_DENSE_SHARE: Final = 0.8
"""Share of the free memory that dequantized weights may take; the rest is for the cache and other programs."""


@dataclass
class BackendChoice:
    """The backends chosen for the quantized layers of one model on one device.

    Attributes:
        device: device to compute on.
        wanted: requested backend, or `auto`.
        candidates: layer name -> names of the backends that support it, the fastest first; the last one always works.
        refusals: backend name -> its reasons, with the number of layers that each concerns.
        taken: backend name -> number of layers built with it.
        failed: name of a backend that failed while building a layer -> reason.
    """

    device: Device
    wanted: str
    candidates: Mapping[str, tuple[str, ...]]
    refusals: Mapping[str, Counter[str]]
    taken: Counter[str] = field(default_factory=Counter)
    failed: dict[str, str] = field(default_factory=dict)

    def rows(self, reasons: Mapping[str, str]) -> tuple[BackendRow, ...]:
        """Return the table of backends for this model.

        Args:
            reasons: name of a backend that runs whole models -> the reason why it does not run this one.
        """
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
    """Return the names of the backends for a kind of device (`cpu`, `cuda`, `xpu`), the fastest first."""
    return (*_ORDERS.get(kind, _ORDERS["cpu"]), WHOLE)


def table(device: Device) -> tuple[BackendRow, ...]:
    """Return a row for every backend: those for this kind of device first, in order of speed."""
    rows = [_missing_row(name, device) for name in _ordered(device.kind, AUTO)]
    problem = llama_cpp.missing(device)
    reason, install = (problem.reason, problem.install) if problem else ("", "")
    rows.append(BackendRow(WHOLE, llama_cpp.TITLE, problem is None, llama_cpp.TAKES, reason, install))
    return tuple(rows)


def whole_rows(device: Device, name: str, layers: int, reasons: Mapping[str, str]) -> tuple[BackendRow, ...]:
    """Return the table of backends for a model of which the backend `name` computes all layers.

    Args:
        layers: number of linears of the model.
        reasons: backend name -> the reason why it is not used.
    """
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
) -> BackendChoice:
    """Choose the backends of each layer.

    Args:
        wanted: a backend with priority over all others; layers that it does not support are computed by the next
            backend that does.

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
        supporting = known.get(kind)
        if supporting is None:
            supporting = tuple(name for name in usable if not backend(name).refusal(kind, device, dtype))
            known[kind] = supporting
        for name in usable:
            if name not in supporting:
                refusals[name][backend(name).refusal(kind, device, dtype)] += 1
        candidates[layer.name] = supporting
    if wanted != "dense" and _too_large(facts, candidates, device, dtype):
        note = "The dequantized weights would not fit into the free memory."
        for name, supporting in candidates.items():
            if supporting[0] == "dense":
                candidates[name] = ("portable", *(other for other in supporting if other != "portable"))
                refusals["dense"][note] += 1
    return BackendChoice(device, wanted, candidates, refusals)


def backend(name: str) -> Backend:
    """Return the backend with the given name.

    Raises:
        KeyError: there is no such backend.
    """
    return _load(name)


def check_name(wanted: str) -> None:
    """Check that a backend with the given name exists.

    Raises:
        BadInput: there is none.
    """
    if wanted not in NAMES:
        raise BadInput(f"There is no backend {wanted[:60]!r}.", f"Choose from {', '.join(NAMES)}.")


@functools.cache
def _load(name: str) -> Backend:
    module, cls = _CLASSES[name]
    found: Backend = getattr(importlib.import_module(f"core.inference.backends.{module}"), cls)()
    return found


def _ordered(kind: str, wanted: str) -> tuple[str, ...]:
    order = _ORDERS.get(kind, _ORDERS["cpu"])
    first = (wanted,) if wanted in _CLASSES else ()
    return tuple(dict.fromkeys((*first, *order, *_CLASSES)))


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
    """Return whether the layers computed by `dense` would need more than _DENSE_SHARE of the free memory."""
    weights = sum(layer.outputs * layer.inputs for layer in facts if candidates[layer.name][0] == "dense")
    return bool(device.total_memory) and weights * dtype.itemsize > _DENSE_SHARE * device.free_memory
