"""Measurement of the prefill and decode speed of a loaded model at several prompt lengths.

Works on any runner (`core.inference.runners.runner`) and needs no tokenizer.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Final

from core.control import ShouldStop, never
from core.errors import BadInput, Cancelled
from core.events import Emit, Progress
from core.inference.figures import SpeedRow
from core.inference.runners.runner import Runner

LENGTHS: Final = (32, 128, 512)
"""Default prompt lengths, in tokens."""
TOKENS: Final = 24
"""Tokens generated after each prompt."""
_STRIDE: Final = 7919
"""A prime, so that the token ids of a prompt do not repeat."""


def bench(
    runner: Runner,
    lengths: Sequence[int] = LENGTHS,
    *,
    tokens: int = TOKENS,
    step_bytes: int = 0,
    bandwidth: float = 0.0,
    emit: Emit = lambda event: None,
    should_stop: ShouldStop = never,
) -> tuple[SpeedRow, ...]:
    """Measure `runner` at each length that fits into its context; empties its cache before and after.

    Args:
        lengths: prompt lengths in tokens.
        tokens: tokens to generate after each prompt, greedily.
        step_bytes: bytes of weights read per generated token; 0 if unknown.
        bandwidth: memory bandwidth in bytes per second; 0 if unknown.
        emit: receives `Progress` after each length.

    Raises:
        BadInput: no length fits.
        Cancelled: `should_stop` returned True.
    """
    fitting = sorted({length for length in lengths if 0 < length <= runner.context - tokens})
    if not fitting:
        raise BadInput(
            f"No prompt of {', '.join(map(str, lengths)) or 'no'} tokens fits a context of {runner.context} "
            f"with {tokens} tokens of answer.",
            "Choose shorter prompts.",
        )
    # Warm up: the first call also starts threads, loads kernels and maps pages of the file.
    runner.truncate(0)
    vocabulary = len(runner.extend([0], should_stop))
    runner.extend([1 % vocabulary] * min(16, runner.context - 1), should_stop)
    rows, began, weights = [], time.monotonic(), sum(fitting)
    for number, length in enumerate(fitting):
        rows.append(_row(runner, length, tokens, vocabulary, should_stop, step_bytes, bandwidth))
        done = sum(fitting[: number + 1]) / weights
        left = (time.monotonic() - began) * (1 - done) / done
        emit(Progress(done, 0.5 * left, 2 * left))
    runner.truncate(0)
    return tuple(rows)


def _row(
    runner: Runner,
    length: int,
    tokens: int,
    vocabulary: int,
    should_stop: ShouldStop,
    step_bytes: int,
    bandwidth: float,
) -> SpeedRow:
    runner.truncate(0)
    prompt = [(position * _STRIDE) % vocabulary for position in range(1, length + 1)]
    began = time.perf_counter()
    token = int(runner.extend(prompt, should_stop).argmax())
    first = max(time.perf_counter() - began, 1e-9)
    times = []
    for _ in range(tokens):
        if should_stop():
            raise Cancelled("Stopped.")
        began = time.perf_counter()
        token = int(runner.extend([token], should_stop).argmax())
        times.append(max(time.perf_counter() - began, 1e-9))
    decode = 1 / statistics.median(times)
    share = step_bytes * decode / bandwidth if step_bytes and bandwidth else None
    return SpeedRow(length, length / first, first, decode, runner.memory_bytes, share)
