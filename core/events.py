"""What a run reports, as frozen dataclasses and one JSON line each.

The run appends these lines to `events.jsonl` in its job folder; followers tail that file. This module knows
the words and their encoding, not who writes or reads them. A line that is unknown or broken becomes a `Log`
event, so a follower of an older version, or of a file cut by a crash, keeps going.
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
    """Base: `time` is seconds since the epoch."""

    time: float = field(default_factory=time.time, kw_only=True)


@dataclass(frozen=True)
class Stage(Event):
    """A part of the run begins: prepare, calibrate, tune, write, verify (or generate, evaluate, convert)."""

    name: str


@dataclass(frozen=True)
class Started(Event):
    """The plan is fixed: what will run, on what, with which resolved settings, and the bytes before and after."""

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
    """Block number `block` (from 0) of `total` begins; `linears` names what is tuned in it."""

    block: int
    total: int
    name: str
    linears: tuple[str, ...]


@dataclass(frozen=True)
class Loss(Event):
    """Mean squared error of a block's output on the minibatch of one iteration."""

    block: int
    iteration: int
    iterations: int
    loss: float


@dataclass(frozen=True)
class BlockDone(Event):
    """A block is final. Losses are the mean squared error on one fixed set: of plain rounding, and of what was kept."""

    block: int
    total: int
    loss_before: float
    loss_after: float
    best_iteration: int
    seconds: float


@dataclass(frozen=True)
class Progress(Event):
    """Share of the whole run that is done (0 to 1), and the remaining seconds as a range (-1: not known yet)."""

    fraction: float
    seconds_low: float
    seconds_high: float


@dataclass(frozen=True)
class Memory(Event):
    """Bytes: resident now, highest so far, and held on the device (0 on a CPU)."""

    resident: int
    peak: int
    device: int


@dataclass(frozen=True)
class Log(Event):
    """A line for people; level is info, warning or error."""

    level: str
    message: str


@dataclass(frozen=True)
class FileWritten(Event):
    """A file of the output is complete on disk."""

    path: str
    size: int


@dataclass(frozen=True)
class Token(Event):
    """A piece of generated text; kind is text, or thinking for what a model writes before its answer."""

    text: str
    kind: str = "text"


@dataclass(frozen=True)
class Listening(Event):
    """The endpoint answers at `url`, under the name `model`, to whoever knows `token`."""

    url: str
    token: str
    model: str


@dataclass(frozen=True)
class Result(Event):
    """The figures of a finished sub-command other than quantize (perplexity, tokens per second, ...)."""

    values: dict[str, Any]


@dataclass(frozen=True)
class Done(Event):
    """The run succeeded. `report` holds everything that the report page shows."""

    output: str
    seconds: float
    report: dict[str, Any]


@dataclass(frozen=True)
class Failed(Event):
    """The run ended without a result. `before_tuning`: nothing was lost, the request itself was wrong."""

    code: str
    message: str
    hint: str
    stage: str
    before_tuning: bool


Emit = Callable[[Event], None]


def ignore_event(_event: Event) -> None:
    """Do nothing: the default receiver of events."""


_TYPES: dict[str, type[Event]] = {
    cls.__name__: cls
    for cls in (
        Stage, Started, BlockStarted, Loss, BlockDone, Progress, Memory, Log, FileWritten, Token, Listening, Result,
        Done, Failed,
    )
}  # fmt: skip


def to_line(event: Event) -> str:
    """One line of plain ASCII JSON without the newline; `event` names the type, null stands for NaN and infinities.

    ASCII, because a terminal or a pipe may have any encoding; null, because strict readers refuse NaN.
    """
    return json.dumps({"event": type(event).__name__, **encode(event)}, allow_nan=False)


def from_line(line: str) -> Event:
    """The event in a line; anything that is not one, or holds a value of the wrong kind, becomes a `Log`."""
    return parsed(line) or Log("warning", line.strip()[:2000])


def parsed(line: str) -> Event | None:
    """The event in a line; None for anything that is not one, or holds a value of the wrong kind."""
    try:
        value = json.loads(line)
        return decode(_TYPES[value.pop("event")], value)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
