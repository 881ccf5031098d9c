"""The state of one run, accumulated from its events in batches.

A batch is built where the events are read (any thread) and applied where they are shown, so that many events cost the
window little: losses arrive as one array per block, errors of experts as one mean per kind, only the last progress and
memory event is kept, and the number of log lines is limited. Does not depend on Qt.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from core.estimation.run_bytes import samples_per_step
from core.events import (
    BlockDone,
    BlockStarted,
    Done,
    EndToEnd,
    Event,
    Failed,
    FileWritten,
    LayerStarted,
    Log,
    Loss,
    Memory,
    Progress,
    Stage,
    Started,
)  # fmt: skip
from core.model.fused_experts import EXPERT
from core.spec import JobSpec

State = Literal["starting", "running", "pausing", "paused", "stopping", "done", "failed", "cancelled", "died"]
STAGES = ("prepare", "calibrate", "tune", "end to end", "write", "verify")
OPTIONAL_STAGE = "end to end"
KEPT_LOGS = 2000
_BATCH_LOGS = 200
_MOST_BLOCKS = 4096
_LARGEST = 2**53


@dataclass
class Curve:
    """Losses of one block, or divergences of the end-to-end stage, in order of arrival, and the lowest of them."""

    iterations: array[float] = field(default_factory=lambda: array("d"))
    losses: array[float] = field(default_factory=lambda: array("d"))
    lowest: float = math.inf
    lowest_at: int = 0

    def add(self, iteration: int, loss: float) -> None:
        self.iterations.append(iteration)
        self.losses.append(loss)
        if loss < self.lowest:
            self.lowest, self.lowest_at = loss, iteration

    def join(self, other: Curve) -> None:
        """Append another piece of the same curve."""
        self.iterations.extend(other.iterations)
        self.losses.extend(other.losses)
        if other.lowest < self.lowest:
            self.lowest, self.lowest_at = other.lowest, other.lowest_at


@dataclass(frozen=True)
class BlockFigures:
    """Result of a block: mean squared error with plain rounding and as quantized, and the iteration that was kept."""

    before: float
    after: float
    best: int
    seconds: float


@dataclass(frozen=True)
class StartErrors:
    """Relative errors of the outputs of a layer, or their means over `layers` experts.

    Attributes:
        before, after: with plain rounding, and with the start.
    """

    before: float
    after: float
    layers: int = 1

    def join(self, other: StartErrors) -> StartErrors:
        """Return the means over the layers of both."""
        count = self.layers + other.layers
        before, after = (
            (self.layers * mine + other.layers * theirs) / count
            for mine, theirs in ((self.before, other.before), (self.after, other.after))
        )
        return StartErrors(before, after, count)


@dataclass
class Batch:
    """Events on their way from the thread that read them."""

    events: list[Event] = field(default_factory=list)
    curves: dict[int, Curve] = field(default_factory=dict)
    starts: dict[tuple[int, str], StartErrors] = field(default_factory=dict)
    divergences: Curve = field(default_factory=Curve)
    iterations: int = 0
    logs: deque[Log] = field(default_factory=lambda: deque(maxlen=_BATCH_LOGS))
    logged: int = 0
    latest: dict[type[Event], Event] = field(default_factory=dict)
    count: int = 0

    def add(self, events: Iterable[Event]) -> None:
        """Add events in their order."""
        for event in events:
            self.count += 1
            if isinstance(event, Loss):
                self._add_loss(event)
            elif isinstance(event, LayerStarted):
                self._add_start(event)
            elif isinstance(event, Log):
                self.logs.append(event)
                self.logged += 1
            elif isinstance(event, EndToEnd | Progress | Memory):
                self.latest[type(event)] = event
                if isinstance(event, EndToEnd) and abs(event.step) < _LARGEST:
                    self.divergences.add(event.step, event.kl)
            else:
                if isinstance(event, Stage):
                    self.latest.pop(Progress, None)  # belongs to the previous stage
                self.events.append(event)

    def _add_loss(self, event: Loss) -> None:
        # a faulty child may write any number; an array holds only what fits a float
        if 0 <= event.block < _MOST_BLOCKS and abs(event.iteration) < _LARGEST:
            self.curves.setdefault(event.block, Curve()).add(event.iteration, event.loss)
            self.iterations = min(event.iterations, _LARGEST)

    def _add_start(self, event: LayerStarted) -> None:
        if 0 <= event.block < _MOST_BLOCKS:
            key = (event.block, kind_of(event.layer))
            errors = StartErrors(event.error_before, event.error_after)
            known = self.starts.get(key)
            self.starts[key] = errors if known is None else known.join(errors)


def kind_of(layer: str) -> str:
    """Return the name of a layer inside its block, without the number of the expert."""
    return EXPERT.sub("experts.*", layer)


class RunRecord:
    """The state of a run so far.

    Attributes:
        spec, job: the settings and the job folder; None while unknown.
        stage, stages_done: the current stage, and those before it.
        started: model, device and resolved settings, once they are fixed.
        block, total: the block being tuned (from 0; -1 before the first) and the number of blocks.
        linears: names of the layers tuned in it.
        iterations: number of steps per block.
        curves: losses of every block; blocks: results of the finished ones.
        starts: errors of the layers whose start was found, by block and kind of the layer.
        divergences: KL divergence to the original by step of the end-to-end stage.
        fraction, seconds_low, seconds_high: progress, and the range of the remaining time (-1: unknown).
        fetching: progress of the model download, None if nothing is being downloaded.
        end_to_end: the last step of the end-to-end stage, or None.
        memory: the last memory event, or None.
        logs, logged: the last log lines, and the number of all.
        began, seen: time of the first and of the last event, in seconds since the epoch.
        wants_pause, stopping: the user requested a pause or the end.
        last: the final event, None while the run is active.
    """

    def __init__(self, spec: JobSpec | None = None, job: Path | None = None) -> None:
        self.spec = spec
        self.job = job
        self.stage = ""
        self.stages_done: tuple[str, ...] = ()
        self.started: Started | None = None
        self.block = -1
        self.total = 0
        self.linears: tuple[str, ...] = ()
        self.iterations = spec.recipe.iters if spec is not None else 0
        self.curves: dict[int, Curve] = {}
        self.starts: dict[int, dict[str, StartErrors]] = {}
        self.divergences = Curve()
        self.blocks: dict[int, BlockFigures] = {}
        self.names: dict[int, str] = {}
        self.fraction = 0.0
        self.seconds_low = self.seconds_high = -1.0
        self.fetching: Progress | None = None
        self.end_to_end: EndToEnd | None = None
        self.memory: Memory | None = None
        self.logs: deque[Log] = deque(maxlen=KEPT_LOGS)
        self.logged = 0
        self.files: list[FileWritten] = []
        self.began = self.seen = 0.0
        self.wants_pause = False
        self.stopping = False
        self.last: Done | Failed | None = None
        self._between_blocks = False

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages of this run; the end-to-end stage only if the recipe has one."""
        planned = self.spec is not None and self.spec.recipe.end_to_end > 0
        if planned or OPTIONAL_STAGE in (self.stage, *self.stages_done):
            return STAGES
        return tuple(name for name in STAGES if name != OPTIONAL_STAGE)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of the layers of the current block, in the order of the model."""
        return tuple(dict.fromkeys(kind_of(name) for name in self.linears))

    @property
    def has_start(self) -> bool:
        """Return whether tuning begins from integers found without gradients."""
        return bool(self.starts) or (self.spec is not None and self.spec.recipe.start == "gptq")

    @property
    def state(self) -> State:
        """State derived from the events and the requests of the user."""
        if isinstance(self.last, Done):
            return "done"
        if isinstance(self.last, Failed):
            return {"cancelled": "cancelled", "child-died": "died"}.get(self.last.code, "failed")  # type: ignore[return-value]
        if self.stopping:
            return "stopping"
        if self.wants_pause:
            return "paused" if self._between_blocks else "pausing"
        return "running" if self.seen else "starting"

    @property
    def active(self) -> bool:
        """Return whether the run has not ended."""
        return self.last is None

    @property
    def can_pause(self) -> bool:
        """Return whether there is another block boundary to pause at."""
        return self.active and not self.stopping and not {"write", "verify"} & {self.stage, *self.stages_done}

    @property
    def report(self) -> dict[str, Any]:
        """The report of a finished run; empty before."""
        return self.last.report if isinstance(self.last, Done) else {}

    @property
    def source_bytes(self) -> int:
        """Bytes of the model's weights before the run; 0 while unknown."""
        value = self.started.settings.get("source_bytes") if self.started is not None else None
        return value if type(value) is int and value > 0 else 0

    @property
    def planned(self) -> dict[str, int]:
        """Bytes of the tensors that the run writes, by format; empty while unknown."""
        value = self.started.settings.get("planned_bytes") if self.started is not None else None
        sizes = value.items() if isinstance(value, dict) else ()
        return {str(name): size for name, size in sizes if type(size) is int and size > 0}

    @property
    def tokens_per_step(self) -> int:
        """Tokens of calibration text per step of tuning or of the end-to-end stage; 0 while unknown."""
        if self.stage == OPTIONAL_STAGE and self.spec is not None:
            return samples_per_step(self.spec.recipe) * self.spec.recipe.seqlen
        settings = self.started.settings if self.started is not None else {}
        try:
            rows = int(settings["micro_batch"]) * int(settings["accumulate"])
            return rows * int(settings["recipe"]["seqlen"])
        except (KeyError, TypeError, ValueError):
            return 0

    def apply(self, batch: Batch) -> None:
        """Update the state with a batch."""
        for event in batch.events:
            self._apply(event)
        for block, curve in batch.curves.items():
            self.curves.setdefault(block, Curve()).join(curve)
        for (block, kind), errors in batch.starts.items():
            known = self.starts.setdefault(block, {})
            known[kind] = known[kind].join(errors) if kind in known else errors
        self.divergences.join(batch.divergences)
        self.iterations = batch.iterations or self.iterations
        self.logs.extend(batch.logs)
        self.logged += batch.logged
        for latest in batch.latest.values():
            self._update_time(latest)
            if isinstance(latest, Progress) and self.stage == "prepare":
                self.fetching = latest
            elif isinstance(latest, Progress):
                self.fraction = min(1.0, max(0.0, latest.fraction))
                self.seconds_low, self.seconds_high = latest.seconds_low, latest.seconds_high
            elif isinstance(latest, EndToEnd):
                self.end_to_end = latest
            elif isinstance(latest, Memory):
                self.memory = latest
        for log in (batch.logs[0], batch.logs[-1]) if batch.logs else ():
            self._update_time(log)

    def _apply(self, event: Event) -> None:
        self._update_time(event)
        if isinstance(event, Stage):
            if self.stage and self.stage != event.name and self.stage not in self.stages_done:
                self.stages_done = (*self.stages_done, self.stage)
            self.stage, self.fetching = event.name, None
            self._between_blocks = event.name in ("tune", OPTIONAL_STAGE)
            self.seconds_low = self.seconds_high = -1.0  # the range covers tuning only
        elif isinstance(event, Started):
            self.started = event
            self.total = min(event.blocks, _MOST_BLOCKS)
        elif isinstance(event, BlockStarted):
            self.block, self.total, self.linears = event.block, min(event.total, _MOST_BLOCKS), event.linears
            self.names[event.block] = event.name
            self._between_blocks = False
        elif isinstance(event, BlockDone):
            self.total = min(event.total, _MOST_BLOCKS)
            figures = BlockFigures(event.loss_before, event.loss_after, event.best_iteration, event.seconds)
            self.blocks[event.block] = figures
            self._between_blocks = event.block + 1 < event.total
        elif isinstance(event, FileWritten):
            self.files.append(event)
        elif isinstance(event, Done | Failed):
            self.last = event
            self.fraction = 1.0 if isinstance(event, Done) else self.fraction

    def _update_time(self, event: Event) -> None:
        self.began = self.began or event.time
        self.seen = max(self.seen, event.time)
