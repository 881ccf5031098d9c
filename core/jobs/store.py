"""Job folders: spec, events, log and owner of each run, and the state of a run derived from them.

Only the process that runs a job writes to its folder, or its follower once that process has ended. The exception is
the control file, through which any process can request a stop or a pause.
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
"""Name of the file that the process running the job keeps locked until it ends."""

State = Literal["created", "running", "done", "failed", "cancelled", "died", "elsewhere", "damaged"]

_locks: dict[str, FileLock] = {}
"""Locks of the jobs that this process runs, by the path of the job folder."""
_cleaned: set[str] = set()
"""Paths of the jobs that this process locks to remove what they left: they do not run."""


@dataclass(frozen=True)
class JobInfo:
    """A job, as read from its folder.

    Attributes:
        id: Name of the job folder.
        state: `elsewhere` if the job was started on another machine and has no result, since this machine cannot
            determine whether it still runs; `damaged` if the spec cannot be read.
        spec: None if it cannot be read.
        last: The last event, if it ends the run.
    """

    id: str
    folder: Path
    state: State
    spec: JobSpec | None
    last: Done | Failed | None

    @property
    def created(self) -> datetime:
        """Creation time of the job (UTC), from its id."""
        return datetime.strptime(self.id[:22], "%Y%m%d-%H%M%S-%f").replace(tzinfo=UTC)


@dataclass(frozen=True)
class ControlRequest:
    """A request to the process that runs a job; neither `stop` nor `pause` means to resume."""

    stop: bool = False
    pause: bool = False


def jobs_root() -> Path:
    """Return the folder that contains the job folders."""
    return home() / "jobs"


def create(spec: JobSpec) -> Path:
    """Create a job folder with its spec and return it. Its name is the id of the job; ids sort by creation time.

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
        hint = "Set BITWRIGHT_HOME to a writable folder on a volume with free space."
        problem = f"The job folder cannot be created in {root}: {reason(error)}."
        raise (DiskFull if is_disk_full(error) else OutputProblem)(problem, hint) from error
    return job


def discard(job: Path) -> None:
    """Remove a job folder with its contents. The output of the job is not part of it."""
    shutil.rmtree(job, ignore_errors=True)


def claim(job: Path, *, controllable: bool = False) -> None:
    """Register this process as the owner of a job, and lock the job until `release` or the end of the process.

    Args:
        controllable: The process reads the control file, and runs this job only.

    Raises:
        OutputProblem: Another process runs the job.
        OSError: The folder cannot be written.
    """
    (job / CONTROL).unlink(missing_ok=True)
    if str(job) not in _locks:
        lock = take(job / LOCK)
        if lock is None:
            raise OutputProblem(f"The job {job.name} is run by another process.", "Wait until it has ended.")
        _locks[str(job)] = lock
    since = (job / EVENTS).stat().st_size if (job / EVENTS).is_file() else 0
    value = {**here().to_json(), "locked": _locks[str(job)].real, "since": since, "controllable": controllable}
    write_json(job / OWNER, value)


def release(job: Path) -> None:
    """Unlock a job that this process has claimed; does nothing for any other job."""
    lock = _locks.pop(str(job), None)
    if lock is not None:
        lock.close()


def write_request(job: Path, *, stop: bool = False, pause: bool = False) -> None:
    """Request the process that runs a job to stop, to pause at the next block boundary or, with neither, to resume."""
    write_json(job / CONTROL, {"stop": stop, "pause": pause})


def read_request(job: Path) -> ControlRequest | None:
    """Return the last request from the control file, or None if there is none."""
    try:
        value = read_json(job / CONTROL)
        return ControlRequest(value.get("stop") is True, value.get("pause") is True)
    except (BitwrightError, AttributeError):
        return None


def list_jobs() -> list[JobInfo]:
    """Return all jobs, the newest first. Folders whose name is not a job id are skipped."""
    return [read_job(jobs_root() / name) for name in _ids()]


def newest() -> JobInfo | None:
    """Return the newest job, or None, without reading the others."""
    names = _ids()
    return read_job(jobs_root() / names[0]) if names else None


def newest_running(max_jobs: int = 200) -> Path | None:
    """Return the newest running job whose process reads the control file, or None.

    Args:
        max_jobs: Maximum number of jobs to examine, starting with the newest.
    """
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
    """Return the process that runs a job, or None if it has ended or runs on another machine."""
    owner = _owner(job)
    return owner.holder.process() if owner is not None and is_running(job) else None


def is_running(job: Path) -> bool:
    """Return whether a process runs the job: by its lock or, on a volume without file locks, by its process id."""
    held = str(job) not in _cleaned and is_held(job / LOCK)
    if held is not None and held:
        return True
    owner = _owner(job)
    if owner is None or owner.holder.elsewhere or (owner.locked and held is False):
        return False
    return owner.holder.process() is not None


def run_offset(job: Path) -> int:
    """Return the offset in the event file, in bytes, at which the latest run of a job starts."""
    owner = _owner(job)
    return owner.since if owner is not None else 0


def read_job(job: Path) -> JobInfo:
    """Read a job from its folder."""
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
    """Remove the unfinished output of a job that has ended; does nothing if a process may still run it."""
    with contextlib.suppress(OSError, BitwrightError):
        _remove_leftovers(job)


def sweep() -> list[Path]:
    """Remove the unfinished output of all runs that were killed, and return the removed folders.

    Only staging folders of jobs that were started, do not run and have no result are removed.
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
    """Remove the staging folders and the stale claim of a job while holding its lock."""
    target = Path(load_spec(job / SPEC).output)
    with _locked(job) as ours:
        if not ours:
            return []
        removed = [place for place in staging_places(target, job.name) if place.is_dir() and staging.remove(place)]
        remove_stale(target, job.name)
    return removed


@contextmanager
def _locked(job: Path) -> Iterator[bool]:
    """Hold the lock of a job; yield false if another process runs the job."""
    if str(job) in _locks:
        yield True
        return
    owner = _owner(job)
    if owner is not None and (owner.holder.elsewhere or is_running(job)):
        yield False
        return
    _cleaned.add(str(job))
    lock = take(job / LOCK)
    if lock is None:
        _cleaned.discard(str(job))
        yield False
        return
    try:
        yield True
    finally:
        lock.close()
        _cleaned.discard(str(job))


def _state_of(event: Event) -> State:
    if isinstance(event, Failed):
        return "cancelled" if event.code == "cancelled" else "failed"
    return "done"


@dataclass(frozen=True)
class _Owner:
    """The process that runs a job, or ran it last.

    Attributes:
        locked: The volume supports file locks, so the lock of the job is visible to other processes.
        since: Size of the event file in bytes at the start of the run.
        controllable: The process reads the control file.
    """

    holder: Holder
    locked: bool
    since: int
    controllable: bool


def _owner(job: Path) -> _Owner | None:
    try:
        value = read_json(job / OWNER)
        if "host" not in value and "started" in value:
            # written by a version without locks: the process has ended, or its id belongs to another one
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
    """Return the names of all job folders, the newest first."""
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
