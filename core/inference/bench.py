"""How fast a loaded model reads and writes, at several lengths of what it has read before.

Works on any runner (`core.inference.runners.runner`). Knows nothing of text, files or how the figures are shown.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from core.control import ShouldStop, never
from core.errors import BadInput, Cancelled
from core.events import Emit, Progress
from core.inference.runners.runner import Runner

LENGTHS: Final = (32, 128, 512)
"""Tokens of the prompts unless the caller wants others."""
TOKENS: Final = 24
"""Tokens that are written behind each prompt."""
_STRIDE: Final = 7919
"""A prime: the prompt runs through the vocabulary without repeating itself."""


@dataclass(frozen=True)
class Row:
    """What was seen at one length.

    Attributes:
        prompt: tokens that were read at once.
        prefill: of them a second.
        first_token: seconds from the question to the first token of the answer.
        decode: tokens of the answer a second, from the median time of one, after the first.
        memory: bytes of weights and cache.
        bandwidth_share: of the memory's speed that reading the weights once a token takes; None if not known.
    """

    prompt: int
    prefill: float
    first_token: float
    decode: float
    memory: int
    bandwidth_share: float | None


def bench(
    runner: Runner,
    lengths: Sequence[int] = LENGTHS,
    *,
    tokens: int = TOKENS,
    step_bytes: int = 0,
    bandwidth: float = 0.0,
    emit: Emit = lambda event: None,
    should_stop: ShouldStop = never,
) -> tuple[Row, ...]:
    """Measure `runner` at each length that its context has room for; its cache is empty before and after.

    Args:
        lengths: tokens of the prompts; tokens: that are written behind each, the likeliest each time.
        step_bytes: of weights that one token needs; bandwidth: bytes a second that the memory can be read with.
        emit: gets `Progress` after each length.

    Raises:
        BadInput: no length fits.
        Cancelled: `should_stop` said so.
    """
    fitting = sorted({length for length in lengths if 0 < length <= runner.context - tokens})
    if not fitting:
        raise BadInput(
            f"No prompt of {', '.join(map(str, lengths)) or 'no'} tokens fits a context of {runner.context} "
            f"with {tokens} tokens of answer.",
            "Choose shorter prompts.",
        )
    # What is set up at the first call (threads, kernels, pages of a file) is not the model's speed.
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
) -> Row:
    runner.truncate(0)
    prompt = [(place * _STRIDE) % vocabulary for place in range(1, length + 1)]
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
    return Row(length, length / first, first, decode, runner.memory_bytes, share)
