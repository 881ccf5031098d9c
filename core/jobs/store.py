"""A folder for each job: its spec, its events, its log, and who runs it.

Knows where jobs live and how their state is read back from what they left; starts nothing. Only the process
that runs a job writes in its folder (and, once that process is dead, whoever waited for it), except for the file of
orders, by which anybody asks that process to stop or to wait.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import psutil

from core.errors import BitwrightError
from core.events import Done, Event, Failed
from core.files import read_json, write_json
from core.home import home
from core.jobs.spec import JobSpec
from core.jobs.spec import load as load_spec
from core.jobs.stream import CHUNK, EventLog, Follower, last_events, tail_events

__all__ = [
    "CHUNK", "EVENTS", "LOG", "ORDERS", "OWNER", "SPEC", "EventLog", "Follower", "JobInfo", "Orders", "State", "claim",
    "claimed_at", "clean_up", "create", "discard", "jobs_root", "list_jobs", "newest", "newest_running",
    "order", "orders", "read_job", "runner", "staging_of", "sweep", "tail_events",
]  # fmt: skip

SPEC = "spec.json"
EVENTS = "events.jsonl"
LOG = "log.txt"
OWNER = "owner.json"
ORDERS = "orders.json"

State = Literal["created", "running", "done", "failed", "cancelled", "died"]


@dataclass(frozen=True)
class JobInfo:
    """What a job folder says: `last` is the Done or Failed event, `spec` is None where it cannot be read."""

    id: str
    folder: Path
    state: State
    spec: JobSpec | None
    last: Done | Failed | None

    @property
    def created(self) -> datetime:
        """When the job was made (UTC), from its id."""
        return datetime.strptime(self.id[:22], "%Y%m%d-%H%M%S-%f").replace(tzinfo=UTC)


@dataclass(frozen=True)
class Orders:
    """What somebody wants of a running job."""

    stop: bool = False
    pause: bool = False


def jobs_root() -> Path:
    """The folder that holds one folder a job."""
    return home() / "jobs"


def create(spec: JobSpec) -> Path:
    """A new job folder with its spec. Its name, the job's id, sorts by time."""
    root = jobs_root()
    root.mkdir(parents=True, exist_ok=True)
    job = root / f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}-{secrets.token_hex(2)}"
    job.mkdir()
    spec.save(job / SPEC)
    return job


def discard(job: Path) -> None:
    """Remove a job folder and all in it. The output is elsewhere and stays."""
    shutil.rmtree(job, ignore_errors=True)


def claim(job: Path, *, obeys: bool = False) -> None:
    """Note in the job folder that this process runs it. Pids are reused, so its start time is noted as well.

    Args:
        obeys: the process looks at the file of orders, and lives for this job only.
    """
    (job / ORDERS).unlink(missing_ok=True)
    me = psutil.Process()
    value = {"pid": me.pid, "started": me.create_time(), "claimed": time.time(), "obeys": obeys}
    write_json(job / OWNER, value)


def order(job: Path, *, stop: bool = False, pause: bool = False) -> None:
    """Ask the process that runs a job to stop, to pause at its next block boundary, or (neither) to go on."""
    write_json(job / ORDERS, {"stop": stop, "pause": pause})


def orders(job: Path) -> Orders | None:
    """What was last ordered, None where nobody ordered anything."""
    try:
        value = read_json(job / ORDERS)
        return Orders(value.get("stop") is True, value.get("pause") is True)
    except (BitwrightError, AttributeError):
        return None


def list_jobs() -> list[JobInfo]:
    """All jobs, the newest first. A folder that is not a job's is passed over."""
    return [read_job(jobs_root() / name) for name in _ids()]


def newest() -> JobInfo | None:
    """The newest job, without a look at all the others."""
    names = _ids()
    return read_job(jobs_root() / names[0]) if names else None


def newest_running(looks: int = 200) -> Path | None:
    """The newest job that runs in a process of its own which obeys orders; looks at so many jobs at most."""
    for job in (jobs_root() / name for name in _ids()[:looks]):
        owner = _owner(job)
        if owner is not None and owner.obeys and _alive(owner) and read_job(job).state == "running":
            return job
    return None


def runner(job: Path) -> psutil.Process | None:
    """The process that runs a job, None where it is gone."""
    owner = _owner(job)
    if owner is None or not _alive(owner):
        return None
    with contextlib.suppress(psutil.Error):
        return psutil.Process(owner.pid)
    return None


def claimed_at(job: Path) -> float:
    """When the run of a job began, in seconds since the epoch; what its event file says of before is an earlier run."""
    owner = _owner(job)
    return owner.claimed if owner is not None else 0.0


def read_job(job: Path) -> JobInfo:
    """The state of one job, from what lies in its folder."""
    try:
        spec = load_spec(job / SPEC)
    except BitwrightError:
        spec = None
    last = next((event for event in last_events(job / EVENTS) if isinstance(event, Done | Failed)), None)
    owner = _owner(job)
    if last is not None and owner is not None and last.time < owner.claimed:
        last = None  # the end of an earlier run of the same job
    if last is not None:
        state: State = _state_of(last)
    elif owner is None:
        state = "created"
    else:
        state = "running" if _alive(owner) else "died"
    return JobInfo(job.name, job, state, spec, last)


def staging_of(output: Path, job: Path) -> Path:
    """Where the output of a job grows before it is renamed to `output`: hidden, beside it, with the job's id."""
    return output.with_name(f".{output.name}.bitwright-{job.name}")


def clean_up(job: Path) -> None:
    """Remove what a dead run of this job left beside its output. Call only when no process runs the job."""
    try:
        spec = load_spec(job / SPEC)
    except BitwrightError:
        return
    shutil.rmtree(staging_of(Path(spec.output), job), ignore_errors=True)


def sweep() -> list[Path]:
    """Remove what runs that were killed left beside their outputs, and say what that was.

    Only the staging folders of jobs that were begun, do not run and have no result; nothing else, whatever its name.
    """
    removed = []
    for job in (jobs_root() / name for name in _ids()):
        with contextlib.suppress(OSError, BitwrightError):
            staging = staging_of(Path(load_spec(job / SPEC).output), job)
            if staging.is_dir() and read_job(job).state in ("failed", "cancelled", "died"):
                clean_up(job)
                removed.append(staging)
    return removed


def _state_of(event: Event) -> State:
    if isinstance(event, Failed):
        return "cancelled" if event.code == "cancelled" else "failed"
    return "done"


@dataclass(frozen=True)
class _Owner:
    pid: int
    started: float
    claimed: float
    obeys: bool


def _owner(job: Path) -> _Owner | None:
    try:
        value = read_json(job / OWNER)
        started, claimed = float(value["started"]), float(value["claimed"])
        return _Owner(int(value["pid"]), started, claimed, value.get("obeys") is True)
    except (BitwrightError, KeyError, TypeError, ValueError):
        return None


def _alive(owner: _Owner) -> bool:
    try:
        process = psutil.Process(owner.pid)
        # two seconds: the kernel counts from boot, and the clock may have been set since
        near = abs(process.create_time() - owner.started) < 2
        return bool(near and process.status() != psutil.STATUS_ZOMBIE)
    except (psutil.Error, ValueError):
        return False


def _ids() -> list[str]:
    """The names of all job folders, the newest first."""
    try:
        with os.scandir(jobs_root()) as entries:
            return sorted((entry.name for entry in entries if _is_id(entry.name) and entry.is_dir()), reverse=True)
    except OSError:
        return []


def _is_id(name: str) -> bool:
    try:
        datetime.strptime(name[:22], "%Y%m%d-%H%M%S-%f").replace(tzinfo=UTC)
    except ValueError:
        return False
    return True
