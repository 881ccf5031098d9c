"""How fast a device reads its memory: the limit of an answer, for which every token reads all weights once.

Measured with torch's own sum over more bytes than any cache holds. Imports torch inside functions only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psutil

if TYPE_CHECKING:
    import torch

_BYTES: Final = 512 << 20
"""Larger than the last-level caches of today's desktops and most servers."""
_LEAST: Final = 32 << 20
_REPEATS: Final = 5


@dataclass(frozen=True)
class Bandwidth:
    """What was seen.

    Attributes:
        bytes_per_second: the fastest of several readings, since anything else on the machine only slows one down.
        device: `cpu`, `cuda:0`, ...; threads: that read at once on a CPU, 0 elsewhere.
        method: in words.
    """

    bytes_per_second: float
    device: str
    threads: int
    method: str


def read_bandwidth(device: str = "cpu", size: int | None = None) -> Bandwidth:
    """Read `size` bytes several times and keep the fastest; takes about a fifth of a second.

    Args:
        device: id of a usable device.
        size: bytes; by default 512 MiB, or an eighth of what is free.

    Raises:
        RuntimeError: the device has no room for it, or failed.
    """
    import torch

    place = torch.device(device)
    if size is None:
        size = max(_LEAST, min(_BYTES, _free(place) // 8))
    values = torch.ones(size // 4, dtype=torch.float32, device=place)
    wait = _waiting(place.type, device)
    values.sum()
    wait()
    best = 0.0
    for _ in range(_REPEATS):
        began = time.perf_counter()
        values.sum()
        wait()
        best = max(best, values.nbytes / max(time.perf_counter() - began, 1e-9))
    threads = torch.get_num_threads() if place.type == "cpu" else 0
    how = f"torch's sum over {values.nbytes >> 20} MiB of float32, the fastest of {_REPEATS}"
    return Bandwidth(best, device, threads, how)


def _free(place: torch.device) -> int:
    import torch

    if place.type == "cuda":
        return int(torch.cuda.mem_get_info(place)[0])
    if place.type == "xpu":
        return int(torch.xpu.mem_get_info(place)[0])
    return int(psutil.virtual_memory().available)


def _waiting(kind: str, device: str) -> Callable[[], None]:
    import torch

    if kind == "cuda":
        return lambda: torch.cuda.synchronize(device)
    if kind == "xpu":
        return lambda: torch.xpu.synchronize(device)
    return lambda: None
