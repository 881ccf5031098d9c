"""The life of a run: check the request, create the job, follow it, clean up and report. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from core.api.estimation import limit_of
from core.bitsmap import BitsMap
from core.control import ShouldStop, never
from core.estimation import preflight
from core.events import Event, Failed
from core.jobs import adopt, child, following, store
from core.jobs.child import Command
from core.jobs.failure import error_of_event
from core.jobs.following import Batches, Outcome
from core.jobs.inline import follow_inline
from core.jobs.steering import StopTimeouts
from core.recipes import Recipe
from core.spec import JobSpec, from_options

PathLike = str | os.PathLike[str]


def quantize(
    model: PathLike,
    output: PathLike,
    *,
    recipe: str | Recipe = "default",
    bits: int | None = None,
    group_size: int | None = None,
    sym: bool | None = None,
    bits_map: BitsMap | PathLike | None = None,
    tower_bits: int | None = None,
    iters: int | None = None,
    lr: float | None = None,
    minmax_lr: float | None = None,
    samples: int | None = None,
    seqlen: int | None = None,
    batch_size: int | None = None,
    accumulate: int | None = None,
    learn_integers: bool | None = None,
    end_to_end: int | None = None,
    calibration: PathLike = "builtin",
    formats: Sequence[str] | None = None,
    device: str = "auto",
    seed: int = 42,
    low_memory: bool = False,
    memory: int | str | None = None,
    compile: bool = False,
    imatrix: PathLike = "",
    save_imatrix: PathLike = "",
    like: PathLike = "",
    pictures: PathLike = "",
    name: str = "",
    inline: bool = False,
    should_stop: ShouldStop = never,
) -> Iterator[Event]:
    """Quantize `model` into the new folder `output`, from the first `next()`; closing the iterator stops the run.

    Args:
        recipe: Name of a recipe (`core.recipes.NAMES`), path of a recipe file, or a `Recipe`.
        bits, group_size, sym: Scheme of all layers that the map does not name; 4, 128 and symmetric by default.
        tower_bits: 4 or 8 for the linear layers of vision and audio towers, which are copied otherwise.
        iters, lr, minmax_lr, samples, seqlen, batch_size, accumulate, learn_integers, end_to_end: Replace the values
            of the recipe; learn_integers and end_to_end only of one with the start gptq, lr of one that tunes integers.
        calibration: `builtin`, a Hub data set id, or a txt, jsonl or parquet file.
        pictures: Pairs of pictures and text (`core.calibration.pairs`) that are used besides the text.
        imatrix, save_imatrix: Importance matrices of llama.cpp that the run reads (without the start gptq) and writes.
        formats: One is written into `output`, several into `output/FORMAT`; `auto_round`, or with `like` `gguf`.
        like: A GGUF file of the model; the output is one with the same types, tokenizer and chat template.
        memory: Most bytes of memory, or a text such as `8GB`; decided from the free memory by default.
        inline: Run in this process, which imports torch and which a crash ends, instead of in a child process.
        should_stop: Returns whether to stop; asked often, from the thread that iterates.

    Yields:
        Events; `Done` is the last, and its `report` has the figures of the run.

    Raises:
        BitwrightError: The input is bad, or the run failed (its `Failed` event was the last); `Cancelled` after a stop.
    """
    given: dict[str, Any] = {**locals(), "memory": limit_of(memory)}
    del given["inline"], given["should_stop"]
    return _events(run_job(from_options(**given), inline=inline, should_stop=should_stop))


def run_job(
    spec: JobSpec,
    *,
    inline: bool = False,
    should_stop: ShouldStop = never,
    should_pause: ShouldStop = never,
    should_detach: ShouldStop = never,
    on_created: Callable[[Path], None] | None = None,
    command: Command | None = None,
    patience: StopTimeouts | None = None,
    chunk: int = store.CHUNK,
) -> Batches:
    """Run a job and yield its events in batches; return its outcome. Every run of the program goes through here.

    A bad request is raised by the call itself. The run starts with the first `next()`. A run without a result leaves no
    output, and a request that is refused before the first block leaves no job folder. Closing the generator stops
    the run.

    Args:
        inline: Run in this process instead of in a child process; such a run cannot be detached.
        should_detach: True lets the run continue without this process; the outcome is then `detached`.
        on_created: Receives the job folder before the run starts.
        command: Replaces the command line of the child process, which is the worker of `core.jobs`.
        patience: Time limits of a stop request.
        chunk: Bytes of the event file that are read at once.

    Raises:
        BitwrightError: The request cannot be carried out, or the job folder cannot be written.
    """
    preflight.check(spec)
    wants = (should_stop, should_pause, should_detach)

    def follow(job: Path) -> Batches:
        if inline:
            return follow_inline(job, should_stop, should_pause)
        return child.follow_child(job, *wants, command=command, patience=patience, chunk=chunk)

    return _life(spec, follow, should_stop, on_created)


def adopt_job(
    job: Path,
    *,
    should_stop: ShouldStop = never,
    should_pause: ShouldStop = never,
    should_detach: ShouldStop = never,
    patience: StopTimeouts | None = None,
    chunk: int = store.CHUNK,
) -> Batches:
    """Follow a run that another process started, from its first event, as `run_job` does.

    Its job folder stays in any case, since the process that started it may follow it as well. Closing the generator
    does not end the run.
    """
    wants = (should_stop, should_pause, should_detach)
    outcome = yield from adopt.follow_running(job, *wants, patience=patience, chunk=chunk)
    if not _keeps_output(outcome):
        store.clean_up(job)
    return outcome


def replay_job(job: Path, *, should_detach: ShouldStop = never, chunk: int = store.CHUNK) -> Batches:
    """Yield the events of a job that has ended, in batches; return its outcome. Changes nothing."""
    return following.replay(job, should_detach, chunk=chunk)


def list_jobs() -> list[store.JobInfo]:
    """Return all jobs of this user, the newest first."""
    return store.list_jobs()


def _life(
    spec: JobSpec,
    follow: Callable[[Path], Batches],
    should_stop: ShouldStop,
    on_created: Callable[[Path], None] | None,
) -> Batches:
    job = store.create(spec)
    outcome: Outcome | None = None
    try:
        if on_created is not None:
            on_created(job)
        outcome = yield from _not_started(job) if should_stop() else follow(job)
        return outcome
    finally:
        if outcome is None or not _keeps_output(outcome):
            store.clean_up(job)
        if outcome is not None and isinstance(outcome.event, Failed) and outcome.event.before_tuning:
            store.discard(job)


def _not_started(job: Path) -> Batches:
    """Record the cancellation of a job whose process was not started yet."""
    failed = Failed("cancelled", "The run was stopped before it began.", "", "", False)
    following.append(job, failed)
    yield [failed]
    return Outcome("cancelled", None, failed)


def _keeps_output(outcome: Outcome) -> bool:
    return outcome.state in ("done", "detached")


def _events(batches: Batches) -> Iterator[Event]:
    """Yield the events of a run; raise the error of one that failed."""
    outcome = yield from following.events_of(batches)
    if isinstance(outcome.event, Failed):
        raise error_of_event(outcome.event)
