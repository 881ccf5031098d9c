"""Measurement of a device's memory bandwidth, the upper limit of decode speed: each token reads all weights once.

Measured with torch's sum over a tensor larger than the caches. Imports torch inside functions only.
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
_MIN_BYTES: Final = 32 << 20
_REPEATS: Final = 5


@dataclass(frozen=True)
class Bandwidth:
    """Measured memory bandwidth of a device.

    Attributes:
        bytes_per_second: the highest of several measurements, because other programs can only lower one.
        device: `cpu`, `cuda:0`, ...
        threads: threads that read concurrently on a CPU; 0 on other devices.
        method: description of the measurement.
    """

    bytes_per_second: float
    device: str
    threads: int
    method: str


def read_bandwidth(device: str = "cpu", size: int | None = None) -> Bandwidth:
    """Read `size` bytes several times and return the highest bandwidth; takes about 0.2 s.

    Args:
        device: id of a usable device.
        size: bytes to read; by default 512 MiB, or an eighth of the free memory if that is less.

    Raises:
        RuntimeError: the device has too little memory, or failed.
    """
    import torch

    target = torch.device(device)
    if size is None:
        size = max(_MIN_BYTES, min(_BYTES, _free_memory(target) // 8))
    values = torch.ones(size // 4, dtype=torch.float32, device=target)
    synchronize = _synchronizer(target.type, device)
    values.sum()
    synchronize()
    best = 0.0
    for _ in range(_REPEATS):
        began = time.perf_counter()
        values.sum()
        synchronize()
        best = max(best, values.nbytes / max(time.perf_counter() - began, 1e-9))
    threads = torch.get_num_threads() if target.type == "cpu" else 0
    method = f"torch's sum over {values.nbytes >> 20} MiB of float32, the fastest of {_REPEATS}"
    return Bandwidth(best, device, threads, method)


def _free_memory(device: torch.device) -> int:
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "xpu":
        return int(torch.xpu.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def _synchronizer(kind: str, device: str) -> Callable[[], None]:
    import torch

    if kind == "cuda":
        return lambda: torch.cuda.synchronize(device)
    if kind == "xpu":
        return lambda: torch.xpu.synchronize(device)
    return lambda: None
