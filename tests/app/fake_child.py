"""A fake child process for tests of the window: `python fake_child.py BEHAVIOUR JOBDIR`. Computes nothing."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from core.claim import staging_places
from core.control import Control
from core.errors import BadInput, Cancelled, VerificationFailed
from core.events import (
    BlockDone,
    BlockStarted,
    Done,
    Emit,
    FileWritten,
    Log,
    Loss,
    Memory,
    Progress,
    Stage,
    Started,
    to_line,
)  # fmt: skip
from core.jobs import store, worker
from core.report.verdict import VERSION
from core.spec import JobSpec
from core.staging import UNFINISHED, remove

BLOCKS, STEPS = 4, 20
FLOOD = 100_000
Act = Callable[[str], None]


def report_of(spec: JobSpec) -> dict[str, Any]:
    """Return a short report of a run."""
    return {
        "version": VERSION, "model": "fake-135M", "origin": "folder", "source_note": "", "parameters": 135_000_000,
        "settings": {"recipe": spec.recipe.to_json(), "default_scheme": {"bits": 4, "group_size": 64, "sym": True}},
        "bits_map": spec.bits_map.to_json(), "layers_by_bits": {"4": 28}, "fallbacks": {}, "bits_per_weight": 4.31,
        "perplexity": {"original": 23.9, "quantized": 25.1},
        "blocks": [{"name": f"model.layers.{n}", "seconds": 0.1, **figures(n)} for n in range(BLOCKS)],
        "verification": {"auto_round": {"layers": 28, "other_tensors": 9, "perplexity": 25.1, "sample": "Paris."}},
        "source_bytes": 269_000_000, "output_bytes": {"auto_round": 117_500_000},
        "files": {"model.safetensors": 114_000_000, "tokenizer.json": 3_500_000}, "seconds": 155.4,
        "peak_memory": 925_000_000,
    }  # fmt: skip


def figures(block: int) -> dict[str, Any]:
    """Return the result of a block."""
    before = 0.02 * 3**block
    return {"loss_before": before, "loss_after": before / 2, "best_iteration": STEPS, "diverged": False}


def tell(act: Act, spec: JobSpec, job: Path, emit: Emit, control: Control) -> None:
    """The story; `act` is called in every stage, in `tune` in the middle of the second block."""
    staging = staging_places(Path(spec.output), job.name)[0]
    emit(Stage("prepare"))
    act("prepare")
    settings = {"recipe": spec.recipe.to_json(), "micro_batch": 8, "accumulate": 1}
    emit(Started("fake-135M", BLOCKS, 28, 135_000_000, "cpu", "bfloat16", 2, settings))
    emit(Stage("calibrate"))
    act("calibrate")
    staging.mkdir(parents=True)
    (staging / UNFINISHED).touch()
    (staging / "model.safetensors").write_bytes(b"half")
    try:
        emit(Stage("tune"))
        for block in range(BLOCKS):
            control.wait_while_paused(0.01)
            _stop(control)
            _tell_block(act, block, emit)
        emit(Stage("write"))
        act("write")
        emit(FileWritten("model.safetensors", 114_000_000))
        emit(Stage("verify"))
        act("verify")
    except BaseException:
        remove(staging)
        raise
    (staging / UNFINISHED).unlink()
    staging.rename(spec.output)
    emit(Done(spec.output, 155.4, report_of(spec)))


def _tell_block(act: Act, block: int, emit: Emit) -> None:
    emit(BlockStarted(block, BLOCKS, f"model.layers.{block}", ("mlp.down_proj", "self_attn.q_proj")))
    before = figures(block)["loss_before"]
    for iteration in range(1, STEPS + 1):
        emit(Loss(block, iteration, STEPS, before * (1 - iteration / (2 * STEPS))))
        if block == 1 and iteration == STEPS // 2:
            act("tune")
    found = figures(block)
    emit(BlockDone(block, BLOCKS, found["loss_before"], found["loss_after"], found["best_iteration"], 0.1))
    emit(Progress(0.03 + 0.93 * (block + 1) / BLOCKS, 10.0 * (BLOCKS - block), 15.0 * (BLOCKS - block)))
    emit(Memory(900_000_000, 925_000_000, 0))


def _stop(control: Control) -> None:
    if control.should_stop():
        raise Cancelled("The run was cancelled.")


def act_at(act: str, stage: str, control: Control, now: str) -> None:
    """Perform `act` if the story has reached `stage`."""
    if now != stage:
        return
    if act == "hold":
        while not control.should_stop():
            time.sleep(0.01)
        _stop(control)
    elif act == "deaf":
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        time.sleep(600)
    elif act == "crash":
        sys.stderr.write("about to die\n")
        sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    elif act == "fail":
        raise VerificationFailed("The written model gives no finite answer.", "Try more bits or another recipe.")
    elif act == "bug":
        raise ZeroDivisionError("a bug")
    elif act == "wrong":
        raise BadInput("The request is wrong.", "Make another.")


def nothing(_stage: str) -> None:
    """Do nothing, for a story without an incident."""


def forever(spec: JobSpec, job: Path, emit: Emit, control: Control) -> None:
    """Tune one block without end."""
    emit(Stage("tune"))
    emit(BlockStarted(0, 1, "model.layers.0", ()))
    iteration = 0
    while not control.should_stop():
        iteration += 1
        emit(Loss(0, iteration, 10**6, 1 / iteration))
        time.sleep(0.01)
    _stop(control)


def pausing(spec: JobSpec, job: Path, emit: Emit, control: Control) -> None:
    """Wait in the second block for a pause, then emit the remaining events as far as allowed."""

    def until_paused(stage: str) -> None:
        while stage == "tune" and not control.should_pause() and not control.should_stop():
            time.sleep(0.01)
        _stop(control)

    tell(until_paused, spec, job, emit, control)


def flood(spec: JobSpec, job: Path, emit: Emit, control: Control) -> None:
    """Writes events as fast as a disk takes them, then ends well."""
    emit(Stage("tune"))
    emit(BlockStarted(0, BLOCKS, "model.layers.0", ()))
    loss, log = to_line(Loss(0, 1, FLOOD, 0.5)), to_line(Log("info", "x" * 80))
    with (job / store.EVENTS).open("ab", buffering=0) as stream:
        for start in range(0, FLOOD, 1000):
            values = (json.loads(loss) | {"iteration": n} for n in range(start, start + 1000))
            stream.write("".join(f"{json.dumps(value)}\n{log}\n" for value in values).encode())
    tell(nothing, spec, job, emit, control)


def garbage(spec: JobSpec, job: Path, emit: Emit, control: Control) -> None:
    """Writes what no reader expects, on every channel, then ends well."""
    sys.stdout.write("\x00\xff{]\n" * 100)
    odd = [
        b"\xff\xfe\x00 not json", b"{}", b"[]", b'{"event": "Loss"}', b'{"event": "Nobody", "x": 1}', b"[" * 50_000,
        b'{"event": "Loss", "block": -5, "iteration": 3, "iterations": 9, "loss": 1.0}',
        b'{"event": "Loss", "block": 1, "iteration": %d, "iterations": 9, "loss": 1.0}' % 10**400,
        b'{"event": "Loss", "block": 2, "iteration": 1, "iterations": 9, "loss": null}',
        b'{"event": "BlockStarted", "block": 0, "total": %d, "name": "", "linears": []}' % 10**12,
        b'{"event": "Progress", "fraction": null, "seconds_low": null, "seconds_high": 1e300}',
        b'{"event": "Log", "time": 1e300, "level": "info", "message": "late"}',
    ]  # fmt: skip
    with (job / store.EVENTS).open("ab", buffering=0) as stream:
        stream.write(b"\n".join(odd) + b"\n\n\n")
    tell(nothing, spec, job, emit, control)


def run_of(behaviour: str) -> worker.Run:
    """The run that a behaviour stands for."""
    if behaviour in RUNS:
        return RUNS[behaviour]
    act, _, stage = behaviour.partition("-")

    def run(spec: JobSpec, job: Path, emit: Emit, control: Control) -> None:
        tell(partial(act_at, act, stage, control), spec, job, emit, control)

    return run


RUNS: dict[str, worker.Run] = {
    "good": partial(tell, nothing), "forever": forever, "pausing": pausing, "flood": flood, "garbage": garbage,
}  # fmt: skip


def command(behaviour: str) -> Callable[[Path], list[str]]:
    """Return the command of the fake child for `Runs(command=...)`."""
    return lambda job: [sys.executable, "-P", __file__, behaviour, str(job)]


if __name__ == "__main__":
    name, folder = sys.argv[1], Path(sys.argv[2])
    code = worker.serve(folder, lambda: run_of(name))
    sys.stdout.flush()
    os._exit(code)
