"""A child process for the tests of `core.jobs.child`: `python fake_worker.py BEHAVIOUR JOBDIR`.

Most behaviours are functions, which replace the pipeline in the real worker. `misbehave` replaces the worker itself.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from core.claim import staging_places
from core.control import Control
from core.errors import BadInput, Cancelled
from core.events import BlockStarted, Done, Emit, Log, Stage
from core.jobs import store, worker
from core.spec import JobSpec
from core.staging import UNFINISHED, remove


def staging(spec: JobSpec, job: Path) -> Path:
    folder = staging_places(Path(spec.output), job.name)[0]
    folder.mkdir()
    (folder / UNFINISHED).touch()
    (folder / "model.safetensors").write_bytes(b"half")
    return folder


def good(spec: JobSpec, job: Path, emit: Emit, control: Control) -> None:
    emit(Stage("prepare"))
    emit(BlockStarted(0, 1, "model.layers.0", ("q_proj",)))
    emit(Done(spec.output, 0.1, {"answer": 42}))


def obedient(spec: JobSpec, job: Path, emit: Emit, control: Control) -> None:
    folder = staging(spec, job)
    emit(Stage("tune"))
    while not control.should_stop():
        time.sleep(0.01)
    remove(folder)
    raise Cancelled("The run was cancelled.")


def pausing(spec: JobSpec, job: Path, emit: Emit, control: Control) -> None:
    """Wait for a pause request, log it, and end after the pause."""
    emit(Stage("tune"))
    while not control.should_pause():
        time.sleep(0.01)
    emit(Log("info", "pausing"))
    control.wait_while_paused(0.01)
    emit(Done(spec.output, 0.1, {}))


def deaf(spec: JobSpec, job: Path, emit: Emit, control: Control) -> None:
    """Behave like a native call that never returns: neither a stop request nor SIGTERM has an effect."""
    staging(spec, job)
    emit(Stage("tune"))
    time.sleep(600)


def wrong(spec: JobSpec, job: Path, emit: Emit, control: Control) -> None:
    emit(Stage("prepare"))
    raise BadInput("The request is wrong.", "Make another.")


def late(spec: JobSpec, job: Path, emit: Emit, control: Control) -> None:
    emit(Stage("tune"))
    emit(BlockStarted(0, 1, "model.layers.0", ()))
    raise BadInput("Too late.", "Never mind.")


def buggy(spec: JobSpec, job: Path, emit: Emit, control: Control) -> None:
    emit(Stage("prepare"))
    raise ZeroDivisionError("a bug\nwith two lines")


def greedy(spec: JobSpec, job: Path, emit: Emit, control: Control) -> None:
    raise MemoryError


def noisy(spec: JobSpec, job: Path, emit: Emit, control: Control) -> None:
    """Print to stdout and read from stdin, as libraries may do."""
    for number in range(20_000):
        sys.stdout.write(f"progress {number}\r")
    assert sys.stdin.read() == ""
    good(spec, job, emit, control)


def flood(spec: JobSpec, job: Path, emit: Emit, control: Control) -> None:
    number = 0
    while not control.should_stop():
        emit(Log("info", f"{number} " + "x" * 200))
        number += 1
    raise Cancelled("The run was cancelled.")


def silent(spec: JobSpec, job: Path, emit: Emit, control: Control) -> None:
    """End without a `Done` event."""


RUNS = {run.__name__: run for run in (good, obedient, pausing, deaf, wrong, late, buggy, greedy, noisy, flood, silent)}


def misbehave(behaviour: str, job: Path) -> None:
    """Behave in ways that the real worker prevents or cannot handle."""
    if behaviour == "garbage":
        with (job / store.EVENTS).open("ab") as stream:
            stream.write(b"\xff\xfe\x00 not json\n{}\n[]\n" + b'{"event": "Loss"}\n\n\n')
            stream.write(b'{"event": "Stage", "time": 1.0, "name": "torn')
        sys.exit(3)
    store.claim(job)
    sys.stderr.write("loading the model\nabout to die\n")
    sys.stderr.flush()
    if behaviour == "child-of-its-own":
        grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        with store.EventLog(job / store.EVENTS) as emit:
            emit(Log("info", str(grandchild.pid)))
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    if behaviour.startswith("exit-"):
        os._exit(int(behaviour.removeprefix("exit-")))
    os.kill(os.getpid(), getattr(signal, behaviour))


if __name__ == "__main__":
    name, folder = sys.argv[1], Path(sys.argv[2])
    if name not in RUNS:
        misbehave(name, folder)
    code = worker.serve(folder, lambda: RUNS[name], self_stop_seconds=1.0 if name == "deaf" else 20.0)
    sys.stdout.flush()
    os._exit(code)
