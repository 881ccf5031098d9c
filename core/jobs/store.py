"""The job folders: spec, events, log and owner of each run, and the state that is read back from them.

Only the process that runs a job writes to its folder (and its follower once that process has ended), except for the
file of orders, through which any process requests a stop or a pause.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import psutil

from core import staging
from core.claim import remove_stale, staging_places, was_claimed
from core.errors import BitwrightError, DiskFull, OutputProblem
from core.events import Done, Event, Failed
from core.files import read_json, reason, write_json
from core.home import home
from core.jobs.failure import is_disk_full
from core.jobs.stream import CHUNK, EventLog, Follower, last_events
from core.lock import FileLock, Holder, here, holder_from_json, is_held, take
from core.spec import JobSpec
from core.spec import load as load_spec

__all__ = [
    "CHUNK",
    "CONTROL",
    "EVENTS",
    "LOCK",
    "LOG",
    "OWNER",
    "SPEC",
    "ControlRequest",
    "EventLog",
    "Follower",
    "JobInfo",
    "State",
    "claim",
    "clean_up",
    "create",
    "discard",
    "is_running",
    "jobs_root",
    "list_jobs",
    "newest",
    "newest_running",
    "read_job",
    "read_request",
    "release",
    "run_offset",
    "running_process",
    "sweep",
    "write_request",
]  # fmt: skip

SPEC = "spec.json"
EVENTS = "events.jsonl"
LOG = "log.txt"
OWNER = "owner.json"
CONTROL = "control.json"
LOCK = "lock"
"""Locked by the process that runs the job, for as long as it lives."""

State = Literal["created", "running", "done", "failed", "cancelled", "died", "elsewhere", "damaged"]

_locks: dict[str, FileLock] = {}
"""The jobs that this process runs."""


@dataclass(frozen=True)
class JobInfo:
    """What a job folder says: `last` is the Done or Failed event, `spec` is None where it cannot be read.

    The state is `elsewhere` where another machine runs it, or ran it and was cut off: that cannot be told from here. It
    is `damaged` where the spec cannot be read.
    """

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
class ControlRequest:
    """What somebody wants of a running job."""

    stop: bool = False
    pause: bool = False


def jobs_root() -> Path:
    """The folder that holds one folder a job."""
    return home() / "jobs"


def create(spec: JobSpec) -> Path:
    """A new job folder with its spec. Its name, the job's id, sorts by time.

    Raises:
        DiskFull, OutputProblem: Bitwright's own folder cannot be written.
    """
    root = jobs_root()
    try:
        root.mkdir(parents=True, exist_ok=True)
        job = root / f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}-{secrets.token_hex(2)}"
        job.mkdir()
        try:
            spec.save(job / SPEC)
        except BaseException:
            discard(job)
            raise
    except OSError as error:
        hint = "Set BITWRIGHT_HOME to a folder that you may write, on a volume with some room."
        problem = f"The record of the run cannot be written in {root}: {reason(error)}."
        raise (DiskFull if is_disk_full(error) else OutputProblem)(problem, hint) from error
    return job


def discard(job: Path) -> None:
    """Remove a job folder and all in it. The output is elsewhere and stays."""
    shutil.rmtree(job, ignore_errors=True)


def claim(job: Path, *, controllable: bool = False) -> None:
    """Note in the job folder that this process runs it, and lock it until `release` or the end of the process.

    Args:
        controllable: the process looks at the file of orders, and lives for this job only.

    Raises:
        OutputProblem: another process runs it.
        OSError: the folder cannot be written.
    """
    (job / CONTROL).unlink(missing_ok=True)
    if str(job) not in _locks:
        lock = take(job / LOCK)
        if lock is None:
            raise OutputProblem(f"The job {job.name} is run by another process.", "Wait for its end.")
        _locks[str(job)] = lock
    since = (job / EVENTS).stat().st_size if (job / EVENTS).is_file() else 0
    value = {**here().to_json(), "locked": _locks[str(job)].real, "since": since, "controllable": controllable}
    write_json(job / OWNER, value)


def release(job: Path) -> None:
    """End the claim of this process on a job; does nothing where there is none."""
    lock = _locks.pop(str(job), None)
    if lock is not None:
        lock.close()


def write_request(job: Path, *, stop: bool = False, pause: bool = False) -> None:
    """Ask the process that runs a job to stop, to pause at its next block boundary, or (neither) to go on."""
    write_json(job / CONTROL, {"stop": stop, "pause": pause})


def read_request(job: Path) -> ControlRequest | None:
    """What was last ordered, None where nobody ordered anything."""
    try:
        value = read_json(job / CONTROL)
        return ControlRequest(value.get("stop") is True, value.get("pause") is True)
    except (BitwrightError, AttributeError):
        return None


def list_jobs() -> list[JobInfo]:
    """All jobs, the newest first. A folder that is not a job's is passed over."""
    return [read_job(jobs_root() / name) for name in _ids()]


def newest() -> JobInfo | None:
    """The newest job, without a look at all the others."""
    names = _ids()
    return read_job(jobs_root() / names[0]) if names else None


def newest_running(max_jobs: int = 200) -> Path | None:
    """The newest job that runs in a process of its own which accepts requests; looks at so many jobs at most."""
    for job in (jobs_root() / name for name in _ids()[:max_jobs]):
        owner = _owner(job)
        if (
            owner is not None
            and owner.controllable
            and running_process(job) is not None
            and read_job(job).state == "running"
        ):
            return job
    return None


def running_process(job: Path) -> psutil.Process | None:
    """The process that runs a job, None where it is gone or cannot be seen from here."""
    owner = _owner(job)
    return owner.holder.process() if owner is not None and is_running(job) else None


def is_running(job: Path) -> bool:
    """Whether a process runs the job: the lock says so, and where a volume has no locks the process does."""
    held = is_held(job / LOCK)
    if held is not None and held:
        return True
    owner = _owner(job)
    if owner is None or owner.holder.elsewhere or (owner.locked and held is False):
        return False
    return owner.holder.process() is not None


def run_offset(job: Path) -> int:
    """Where in the event file the newest run of a job begins, in bytes; what comes before is of earlier ones."""
    owner = _owner(job)
    return owner.since if owner is not None else 0


def read_job(job: Path) -> JobInfo:
    """The state of one job, from what lies in its folder."""
    try:
        spec = load_spec(job / SPEC)
    except BitwrightError:
        spec = None
    events = last_events(job / EVENTS, run_offset(job))
    last = next((event for event in events if isinstance(event, Done | Failed)), None)
    return JobInfo(job.name, job, _state(job, spec, last), spec, last)


def _state(job: Path, spec: JobSpec | None, last: Done | Failed | None) -> State:
    owner = _owner(job)
    if last is not None and spec is not None:
        return _state_of(last)
    if is_running(job):
        return "running"
    if spec is None:
        return "damaged"
    if owner is None:
        return "damaged" if os.path.lexists(job / OWNER) else "created"
    return "elsewhere" if owner.holder.elsewhere else "died"


def clean_up(job: Path) -> None:
    """Remove what a dead run of this job left beside its output; nothing where a process runs it, or may do so."""
    with contextlib.suppress(OSError, BitwrightError):
        _remove_leftovers(job)


def sweep() -> list[Path]:
    """Remove what runs that were killed left beside their outputs, and say what that was.

    Only the staging folders of jobs that were begun, do not run and have no result; nothing else, whatever its name.
    """
    removed: list[Path] = []
    for job in (jobs_root() / name for name in _ids()):
        with contextlib.suppress(OSError, BitwrightError):
            target = Path(load_spec(job / SPEC).output)
            left = any(place.is_dir() for place in staging_places(target, job.name)) or was_claimed(target)
            if left and read_job(job).state in ("failed", "cancelled", "died"):
                removed += _remove_leftovers(job)
    return removed


def _remove_leftovers(job: Path) -> list[Path]:
    """Remove the staging folders and the stale claim of a job while its lock keeps others from running it."""
    target = Path(load_spec(job / SPEC).output)
    with _locked(job) as ours:
        if not ours:
            return []
        removed = [place for place in staging_places(target, job.name) if place.is_dir() and staging.remove(place)]
        remove_stale(target, job.name)
    return removed


@contextmanager
def _locked(job: Path) -> Iterator[bool]:
    """Hold the lock of a job that nobody runs, or that this process does; false if that cannot be."""
    if str(job) in _locks:
        yield True
        return
    owner = _owner(job)
    lock = None if owner is not None and (owner.holder.elsewhere or is_running(job)) else take(job / LOCK)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            lock.close()


def _state_of(event: Event) -> State:
    if isinstance(event, Failed):
        return "cancelled" if event.code == "cancelled" else "failed"
    return "done"


@dataclass(frozen=True)
class _Owner:
    """Who runs a job, or did.

    Attributes:
        locked: the lock in the job folder is one that others see.
        since: bytes of the event file when the run began.
    """

    holder: Holder
    locked: bool
    since: int
    controllable: bool


def _owner(job: Path) -> _Owner | None:
    try:
        value = read_json(job / OWNER)
        if "host" not in value and "started" in value:
            # a version that had no locks; whatever it ran has ended, or is not known to be the same process
            value = {**value, "host": here().host, "boot": "", "started": -1}
        since = value.get("since", 0)
        known = isinstance(since, int) and since >= 0
        return _Owner(
            holder_from_json(value),
            value.get("locked") is True,
            since if known else 0,
            value.get("controllable") is True,
        )
    except (BitwrightError, AttributeError, TypeError, ValueError):
        return None


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
