"""Job folders and the state that is derived from them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs
import psutil
import pytest

from core import lock
from core.claim import staging_places
from core.errors import OutputProblem
from core.events import Done, Event, Failed, Stage
from core.files import write_json
from core.home import home as bitwright_home
from core.jobs import store
from core.jobs.process import ROOT
from core.spec import JobSpec
from core.staging import UNFINISHED


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BITWRIGHT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return store.create(JobSpec("demo", str(tmp_path / "out"), name="first"))


def add(job: Path, *events: Event) -> None:
    with store.EventLog(job / store.EVENTS) as emit:
        for event in events:
            emit(event)


def leave_dead_run(job: Path, **changes: object) -> None:
    """Leave the job folder in the state after its process was killed: claimed, but not locked."""
    store.claim(job)
    store.release(job)
    if changes:
        write_json(job / store.OWNER, {**json.loads((job / store.OWNER).read_text()), **changes})


CLAIMANT = """
import sys
from pathlib import Path
from core.jobs import store
store.claim(Path(sys.argv[1]), controllable=True)
print("claimed", flush=True)
input()
"""


@contextmanager
def another_process(job: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start another process that claims the job."""
    command = [sys.executable, "-c", CLAIMANT, str(job)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"claimed\n"
        yield process
        process.kill()


def test_without_the_variable_jobs_are_in_the_data_folder_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BITWRIGHT_HOME")
    assert bitwright_home() == platformdirs.user_data_path("bitwright", appauthor=False)


def test_a_new_job_has_its_spec_and_the_state_created(job: Path, home: Path) -> None:
    assert job.parent == home / "jobs"
    found = store.read_job(job)
    assert found.spec is not None
    assert (found.spec.name, found.state, found.last) == ("first", "created", None)


def test_ids_sort_by_time(tmp_path: Path) -> None:
    made = [store.create(JobSpec("demo", str(tmp_path / "out"))).name for _ in range(5)]
    assert made == sorted(made)
    assert [job.id for job in store.list_jobs()] == made[::-1]


def test_the_creation_time_is_read_from_the_id(job: Path) -> None:
    assert abs(store.read_job(job).created.timestamp() - time.time()) < 3600


@pytest.mark.parametrize(
    ("end", "state"),
    [
        (Done("out", 1.0, {}), "done"),
        (Failed("bad-input", "m", "h", "prepare", True), "failed"),
        (Failed("cancelled", "m", "h", "tune", False), "cancelled"),
    ],
)
def test_the_last_event_determines_the_state(job: Path, end: Done | Failed, state: str) -> None:
    add(job, Stage("prepare"), end)
    found = store.read_job(job)
    assert (found.state, found.last) == (state, end)


def test_a_claimed_job_is_running(job: Path) -> None:
    store.claim(job)
    add(job, Stage("tune"))
    assert store.read_job(job).state == "running"


def test_a_job_whose_process_was_killed_has_died(job: Path) -> None:
    with another_process(job) as process:
        assert store.read_job(job).state == "running"
        found = store.running_process(job)
        assert found is not None
        assert found.pid == process.pid
    assert (store.read_job(job).state, store.running_process(job)) == ("died", None)


@pytest.mark.parametrize("step", [-3600.0, -30.0, 30.0])
def test_a_change_of_the_system_clock_does_not_change_the_state(
    job: Path, step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start time of a process, as psutil reports it, depends on the clock; the lock does not."""
    now, started = time.time, psutil.Process.create_time
    with another_process(job) as process:
        monkeypatch.setattr(time, "time", lambda: now() + step)
        monkeypatch.setattr(psutil.Process, "create_time", lambda self: started(self) + step)
        assert store.read_job(job).state == "running"
        assert store.newest_running() == job
        assert store.sweep() == []
        add(job, Done("out", 1.0, {}))  # with a time of the new clock
        process.kill()
        process.wait()
        assert store.read_job(job).state == "done"


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"host": "another"}, "died"),  # a container on this machine
        ({"boot": "another"}, "died"),  # this machine before a restart
        ({"host": "another", "boot": "another"}, "elsewhere"),
    ],
)
def test_a_job_of_another_machine_is_elsewhere_and_not_dead(job: Path, changes: dict[str, str], state: str) -> None:
    leave_dead_run(job, **changes)
    assert store.read_job(job).state == state


def test_unfinished_output_of_another_machine_is_not_removed(tmp_path: Path) -> None:
    job, growing = staged(tmp_path, "a")
    leave_dead_run(job, host="another", boot="another")
    assert store.sweep() == []
    store.clean_up(job)
    assert growing.is_dir()


def test_a_job_cannot_be_claimed_by_two_processes(job: Path) -> None:
    with another_process(job), pytest.raises(OutputProblem, match="run by another process"):
        store.claim(job)


def test_without_file_locks_the_process_id_determines_the_state(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_descriptor: int, *, shared: bool) -> None:
        return None

    monkeypatch.setattr(lock, "_lock", none)
    store.claim(job)
    assert store.read_job(job).state == "running"
    write_json(job / store.OWNER, {**json.loads((job / store.OWNER).read_text()), "started": 1.0})
    assert store.read_job(job).state == "died"
    store.release(job)


def test_the_end_of_an_earlier_run_is_ignored(job: Path) -> None:
    add(job, Failed("cancelled", "m", "h", "tune", False))
    store.claim(job)
    assert store.read_job(job).state == "running"


DAMAGES = [b"", b"{", b"[]", b'{"pid": "x"}', b'{"pid": 1e999, "started": 1, "claimed": 1}', b'{"version": 2}', b"\xff"]


def damage(path: Path, content: bytes | None) -> None:
    """Replace a file by `content`, or by a folder if it is None."""
    path.unlink(missing_ok=True)
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)


@pytest.mark.parametrize("content", [*DAMAGES, None])
@pytest.mark.parametrize("name", [store.SPEC, store.OWNER, store.EVENTS, store.CONTROL, store.LOCK])
def test_a_damaged_job_does_not_prevent_listing_and_sweeping(tmp_path: Path, name: str, content: bytes | None) -> None:
    job, _ = staged(tmp_path, "damaged")
    leave_dead_run(job)
    damage(job / name, content)
    died, left = staged(tmp_path, "a")
    leave_dead_run(died)
    assert left in store.sweep()
    assert [found.id for found in store.list_jobs()] == [died.name, job.name]
    assert (job / name).exists()


@pytest.mark.parametrize("name", [store.SPEC, store.OWNER])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 2}', None])
def test_a_job_whose_spec_or_owner_cannot_be_read_is_damaged(job: Path, name: str, content: bytes | None) -> None:
    leave_dead_run(job)
    damage(job / name, content)
    assert store.read_job(job).state == "damaged"


@pytest.mark.parametrize("value", [5, None, ["a"], "a\0b"])
def test_a_spec_whose_output_is_no_path_is_damaged(job: Path, value: object) -> None:
    write_json(job / store.SPEC, {**json.loads((job / store.SPEC).read_text()), "output": value})
    assert store.read_job(job).state == "damaged"
    assert store.sweep() == []


def test_a_spec_above_the_size_limit_is_not_read(job: Path) -> None:
    with (job / store.SPEC).open("r+b") as stream:
        stream.truncate(1 << 32)
    assert store.read_job(job).state == "damaged"


def test_folders_whose_name_is_no_job_id_are_not_listed(job: Path) -> None:
    (job.parent / "notes").mkdir()
    (job.parent / "20260101-000000-000000.txt").write_text("")
    assert [found.id for found in store.list_jobs()] == [job.name]


def test_a_missing_home_folder_has_no_jobs() -> None:
    assert store.list_jobs() == []


def test_clean_up_removes_the_staging_folder_and_nothing_else(job: Path, tmp_path: Path) -> None:
    mine = staging_places(tmp_path / "out", job.name)[0]
    others = staging_places(tmp_path / "out", "another")[0]
    for folder in (mine, others, tmp_path / "out"):
        folder.mkdir()
        (folder / "file").write_text("")
    (mine / UNFINISHED).touch()
    store.clean_up(job)
    assert not mine.exists()
    assert (others / "file").exists()
    assert (tmp_path / "out" / "file").exists()


def test_discarding_removes_the_job_and_keeps_the_output(job: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    store.discard(job)
    assert not job.exists()
    assert (tmp_path / "out").exists()


def staged(tmp_path: Path, name: str) -> tuple[Path, Path]:
    """Create a job and the staging folder of its run."""
    job = store.create(JobSpec("demo", str(tmp_path / name)))
    folder = staging_places(tmp_path / name, job.name)[0]
    folder.mkdir()
    (folder / UNFINISHED).touch()
    (folder / "model.safetensors").write_text("half")
    return job, folder


def test_a_sweep_removes_the_staging_folders_of_dead_runs(tmp_path: Path) -> None:
    died, left = staged(tmp_path, "a")
    leave_dead_run(died)
    failed, also = staged(tmp_path, "b")
    leave_dead_run(failed)
    add(failed, Failed("internal", "m", "", "tune", False))
    assert sorted(store.sweep()) == sorted([left, also])
    assert not left.exists()
    assert not also.exists()


def test_a_dead_run_stays_dead_while_its_files_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    died, left = staged(tmp_path, "a")
    leave_dead_run(died)
    seen = []

    def remove(place: Path) -> bool:
        seen.append(store.read_job(died).state)
        return True

    monkeypatch.setattr(store.staging, "remove", remove)
    assert store.sweep() == [left]
    assert seen == ["died"]


def test_a_sweep_removes_nothing_else(tmp_path: Path) -> None:
    running, growing = staged(tmp_path, "running")
    store.claim(running)
    _, begun = staged(tmp_path, "just-made")
    done, odd = staged(tmp_path, "done")
    leave_dead_run(done)
    kept, finished = staged(tmp_path, "kept")
    leave_dead_run(kept)
    (finished / UNFINISHED).unlink()
    add(done, Done(str(tmp_path / "done"), 1.0, {}))
    stranger = tmp_path / ".mine.bitwright-20260101-000000-000000-abcd"
    stranger.mkdir()
    died = store.create(JobSpec("demo", str(tmp_path / "output")))
    leave_dead_run(died)
    (tmp_path / "output").mkdir()
    assert store.sweep() == []
    assert all(folder.is_dir() for folder in (growing, begun, odd, finished, stranger, tmp_path / "output"))


def test_a_sweep_skips_jobs_that_cannot_be_read(job: Path, tmp_path: Path) -> None:
    (job / store.SPEC).write_text("{")
    died, left = staged(tmp_path, "a")
    leave_dead_run(died)
    assert store.sweep() == [left]
