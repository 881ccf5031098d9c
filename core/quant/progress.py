"""Progress, remaining time and memory of a run."""

from __future__ import annotations

import resource
import sys
import time

import psutil
import torch

from core.events import Emit, Memory, Progress
from core.inference.memory import give_back_memory

BEFORE_BLOCKS, _BLOCKS = 0.03, 0.93
"""Fractions of a run: before the first block, and all blocks together."""
_EVERY = 0.5


class BlockProgress:
    """Emitter of `Progress` and `Memory` events, at most two per second."""

    def __init__(self, blocks: int, iterations: int, emit: Emit) -> None:
        self._blocks = blocks
        self._iterations = max(1, iterations)
        self._emit = emit
        self._seconds: list[float] = []
        self._block_began = time.monotonic()
        self._last = 0.0

    def at(self, block: int, iteration: int) -> None:
        """Record that an iteration (from 1) of a block (from 0) is done."""
        now = time.monotonic()
        if now - self._last < _EVERY:
            return
        self._last = now
        # The forward passes before and after the steps take about a tenth of the time of a block.
        inside = 0.05 + 0.9 * iteration / self._iterations
        self._report(block, inside, (now - self._block_began) / inside)

    def block_done(self, block: int, seconds: float) -> None:
        """Record that a block is done, and emit its progress and the memory in use."""
        give_back_memory()
        self._seconds.append(seconds)
        self._block_began = self._last = time.monotonic()
        self._report(block + 1, 0.0, seconds)
        resident = psutil.Process().memory_info().rss
        self._emit(Memory(resident=resident, peak=peak_memory(), device=_device_memory()))

    def _report(self, done: int, inside: float, current: float) -> None:
        each = [*self._seconds, current]
        left = self._blocks - done - inside
        typical = sorted(each)[len(each) // 2]
        # The spread is unknown before a few blocks are done.
        spread = 0.4 if len(self._seconds) < 2 else 0.12
        self._emit(
            Progress(
                fraction=BEFORE_BLOCKS + _BLOCKS * (done + inside) / self._blocks,
                seconds_low=left * typical * (1 - spread),
                seconds_high=left * typical * (1 + spread) + 10,
            )
        )


def peak_memory() -> int:
    """Return the peak resident memory of this process, in bytes."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _device_memory() -> int:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.memory_allocated()
    if torch.xpu.is_available() and torch.xpu.is_initialized():
        return torch.xpu.memory_allocated()
    return 0
