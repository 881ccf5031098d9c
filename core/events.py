"""Events of a run, as frozen dataclasses with one JSON line each.

A run appends these lines to `events.jsonl` in its job folder, and its followers read that file. A line of an unknown
type, or one that was cut off by a crash, is read as a `Log` event, so that followers can continue.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from core.codec import decode, encode


@dataclass(frozen=True)
class Event:
    """Base class of events; `time` is in seconds since the epoch."""

    time: float = field(default_factory=time.time, kw_only=True)


@dataclass(frozen=True)
class Stage(Event):
    """Start of a stage: prepare, calibrate, tune, end to end, write, verify (or generate, evaluate, convert)."""

    name: str


@dataclass(frozen=True)
class Started(Event):
    """The plan of a run: model, device, resolved settings, and the bytes of the source and the output."""

    model: str
    blocks: int
    linears: int
    parameters: int
    device: str
    dtype: str
    threads: int
    settings: dict[str, Any]


@dataclass(frozen=True)
class BlockStarted(Event):
    """Start of block number `block` (from 0) of `total`; `linears` names its tuned layers."""

    block: int
    total: int
    name: str
    linears: tuple[str, ...]


@dataclass(frozen=True)
class LayerStarted(Event):
    """Start of a layer of a block, found without gradients (`core.quant.start`).

    Errors are squared errors of the layer's outputs on the calibration text relative to the squares of these outputs:
    tr((W - Q) G (W - Q)^T) / tr(W G W^T) with the Gram matrix G of the inputs.

    Attributes:
        block: number of the block, from 0.
        layer: name inside the block, as in `BlockStarted.linears`.
        error_before, error_after: with plain rounding, and with the start.
    """

    block: int
    layer: str
    error_before: float
    error_after: float


@dataclass(frozen=True)
class Loss(Event):
    """Mean squared error of a block's output on the minibatch of one iteration."""

    block: int
    iteration: int
    iterations: int
    loss: float


@dataclass(frozen=True)
class BlockDone(Event):
    """End of a block. Losses are mean squared errors on the same samples: of plain rounding, and of the result."""

    block: int
    total: int
    loss_before: float
    loss_after: float
    best_iteration: int
    seconds: float


@dataclass(frozen=True)
class EndToEnd(Event):
    """KL divergence to the original model, in nats per token, on the samples of one end-to-end step (from 1)."""

    step: int
    steps: int
    kl: float


@dataclass(frozen=True)
class Progress(Event):
    """Completed fraction of the run (0 to 1), and the remaining seconds as a range (-1: unknown)."""

    fraction: float
    seconds_low: float
    seconds_high: float


@dataclass(frozen=True)
class Memory(Event):
    """Memory in bytes: resident, peak, and on the device (0 on a CPU)."""

    resident: int
    peak: int
    device: int


@dataclass(frozen=True)
class Log(Event):
    """A message; level is info, warning or error."""

    level: str
    message: str


@dataclass(frozen=True)
class FileWritten(Event):
    """A completed file of the output."""

    path: str
    size: int


@dataclass(frozen=True)
class Token(Event):
    """A piece of generated text; kind is `text`, or `thinking` for the reasoning before the answer."""

    text: str
    kind: str = "text"


@dataclass(frozen=True)
class Listening(Event):
    """Address of the running endpoint, with the model name and the access token."""

    url: str
    token: str
    model: str


@dataclass(frozen=True)
class Result(Event):
    """Result of a sub-command other than quantize (perplexity, tokens per second, ...)."""

    values: dict[str, Any]


@dataclass(frozen=True)
class Done(Event):
    """Success of a run; `report` contains the values of the report page."""

    output: str
    seconds: float
    report: dict[str, Any]


@dataclass(frozen=True)
class Failed(Event):
    """Failure of a run; `before_tuning` is true if no work was lost."""

    code: str
    message: str
    hint: str
    stage: str
    before_tuning: bool


Emit = Callable[[Event], None]


def ignore_event(_event: Event) -> None:
    """Ignore an event: the default callback."""


_TYPES: dict[str, type[Event]] = {
    cls.__name__: cls
    for cls in (
        Stage, Started, BlockStarted, LayerStarted, Loss, BlockDone, EndToEnd, Progress, Memory, Log, FileWritten,
        Token, Listening, Result, Done, Failed,
    )
}  # fmt: skip


def to_line(event: Event) -> str:
    """Return an event as one line of ASCII JSON without newline; `event` is the type, null encodes NaN and infinity.

    ASCII, because a terminal or a pipe can have any encoding; null, because JSON has no NaN.
    """
    return json.dumps({"event": type(event).__name__, **encode(event)}, allow_nan=False)


def from_line(line: str) -> Event:
    """Return the event in a line; an invalid line becomes a `Log` event."""
    return parsed(line) or Log("warning", line.strip()[:2000])


def parsed(line: str) -> Event | None:
    """Return the event in a line; None for an invalid line."""
    try:
        value = json.loads(line)
        return decode(_TYPES[value.pop("event")], value)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
