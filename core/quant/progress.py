"""Progress, remaining time and memory of a run."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence

import psutil
import torch

from core.events import Emit, Memory, Progress
from core.inference.memory import give_back_memory

BEFORE_BLOCKS, _BLOCKS = 0.03, 0.93
"""Fractions of a run: before the first block, and all blocks together with the end-to-end steps."""
_EVERY = 0.5
_STEPS_END = 0.95
"""Fraction of the time of a block after its last step; the rest are forward passes and files."""


class BlockProgress:
    """Emitter of `Progress` and `Memory` events, at most two per second.

    Args:
        blocks: number of blocks.
        iterations: steps per block.
        steps: end-to-end steps after the last block.
        share: fraction of their time in that of the blocks and these steps.
    """

    def __init__(self, blocks: int, iterations: int, emit: Emit, steps: int = 0, share: float = 0.0) -> None:
        self._steps = max(1, steps)
        self._share = share
        self._blocks = blocks
        self._iterations = max(1, iterations)
        self._emit = emit
        self._seconds: list[float] = []
        self._block_began = time.monotonic()
        self._first_step: tuple[int, float] | None = None
        self._last = 0.0

    def layer_started(self, block: int) -> None:
        """Record that the start of a layer of a block (from 0) is found."""
        now = time.monotonic()
        if now - self._last >= _EVERY and self._seconds:
            self._last = now
            self._inside(block, now, _median(self._seconds))

    def at(self, block: int, iteration: int) -> None:
        """Record that an iteration (from 1) of a block (from 0) is done."""
        now = time.monotonic()
        if self._first_step is None:
            self._first_step = (iteration, now)
        if now - self._last < _EVERY:
            return
        first, began = self._first_step
        if iteration > first:
            left = (now - began) / (iteration - first) * (self._iterations - iteration)
            self._last = now
            self._inside(block, now, (now - self._block_began + left) / _STEPS_END)
        else:
            self.layer_started(block)

    def block_done(self, block: int, seconds: float) -> None:
        """Record that a block is done, and emit its progress and the memory in use."""
        give_back_memory()
        self._seconds.append(seconds)
        self._block_began = self._last = time.monotonic()
        self._first_step = None
        self._report(block + 1, 0.0, seconds)
        resident = psutil.Process().memory_info().rss
        self._emit(Memory(resident=resident, peak=peak_memory(), device=_device_memory()))

    def step_done(self, step: int) -> None:
        """Record that an end-to-end step (from 1) is done."""
        now = time.monotonic()
        if now - self._last < _EVERY and step < self._steps:
            return
        self._last = now
        left = (now - self._block_began) / step * (self._steps - step)
        fraction = BEFORE_BLOCKS + _BLOCKS * (1 - self._share * (1 - step / self._steps))
        self._emit(Progress(fraction=fraction, seconds_low=0.8 * left, seconds_high=1.2 * left + 10))

    def _inside(self, block: int, now: float, seconds: float) -> None:
        """Report that a block with this estimated duration is not done yet."""
        elapsed = now - self._block_began
        self._report(block, min(_STEPS_END, elapsed / max(seconds, 1e-9)), max(elapsed, seconds))

    def _report(self, done: int, inside: float, current: float) -> None:
        each = [*self._seconds, current]
        left = self._blocks - done - inside
        typical = _median(each)
        # The spread is unknown before a few blocks are done.
        rest = self._blocks * typical * self._share / (1 - self._share)
        spread = 0.4 if len(self._seconds) < 2 else 0.12
        self._emit(
            Progress(
                fraction=BEFORE_BLOCKS + _BLOCKS * (1 - self._share) * (done + inside) / self._blocks,
                seconds_low=(left * typical + rest) * (1 - spread),
                seconds_high=(left * typical + rest) * (1 + spread) + 10,
            )
        )


def _median(seconds: Sequence[float]) -> float:
    return sorted(seconds)[len(seconds) // 2]


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
