"""A folder for each job: its spec, its events, its log, and who runs it.

Knows where jobs live and how their state is read back from what they left; starts nothing. Only the process
that runs a job writes in its folder (and, once that process is dead, whoever waited for it).
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import platformdirs
import psutil

from core.errors import BitwrightError
from core.events import Done, Event, Failed
from core.files import read_json, write_json
from core.jobs.spec import JobSpec
from core.jobs.spec import load as load_spec
from core.jobs.stream import EventLog, Follower, last_events, tail_events

__all__ = [
    "EVENTS", "LOG", "OWNER", "SPEC", "EventLog", "Follower", "JobInfo", "State", "claim", "clean_up", "create",
    "discard", "home", "jobs_root", "list_jobs", "read_job", "staging_of", "tail_events",
]  # fmt: skip

SPEC = "spec.json"
EVENTS = "events.jsonl"
LOG = "log.txt"
OWNER = "owner.json"

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


def home() -> Path:
    """Bitwright's own data folder; the environment variable BITWRIGHT_HOME moves it."""
    moved = os.environ.get("BITWRIGHT_HOME")
    return Path(moved).absolute() if moved else platformdirs.user_data_path("bitwright", appauthor=False)


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


def claim(job: Path) -> None:
    """Note in the job folder that this process runs it. Pids are reused, so its start time is noted as well."""
    me = psutil.Process()
    write_json(job / OWNER, {"pid": me.pid, "started": me.create_time(), "claimed": time.time()})


def list_jobs() -> list[JobInfo]:
    """All jobs, the newest first. A folder that is not a job's is passed over."""
    root = jobs_root()
    if not root.is_dir():
        return []
    folders = sorted((folder for folder in root.iterdir() if folder.is_dir() and _is_id(folder.name)), reverse=True)
    return [read_job(folder) for folder in folders]


def read_job(job: Path) -> JobInfo:
    """The state of one job, from what lies in its folder."""
    try:
        spec = load_spec(job / SPEC)
    except BitwrightError:
        spec = None
    last = next((event for event in reversed(last_events(job / EVENTS)) if isinstance(event, Done | Failed)), None)
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


def _state_of(event: Event) -> State:
    if isinstance(event, Failed):
        return "cancelled" if event.code == "cancelled" else "failed"
    return "done"


@dataclass(frozen=True)
class _Owner:
    pid: int
    started: float
    claimed: float


def _owner(job: Path) -> _Owner | None:
    try:
        value = read_json(job / OWNER)
        return _Owner(int(value["pid"]), float(value["started"]), float(value["claimed"]))
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


def _is_id(name: str) -> bool:
    try:
        datetime.strptime(name[:22], "%Y%m%d-%H%M%S-%f").replace(tzinfo=UTC)
    except ValueError:
        return False
    return True
