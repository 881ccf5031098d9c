"""Job folders and the state that is read back from them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import platformdirs
import psutil
import pytest

from core.events import Done, Event, Failed, Stage
from core.files import write_json
from core.home import home as bitwright_home
from core.jobs import store
from core.jobs.spec import JobSpec


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


def owned_by(job: Path, pid: int, started: float) -> None:
    write_json(job / store.OWNER, {"pid": pid, "started": started, "claimed": time.time()})


def test_without_the_variable_jobs_live_in_the_users_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BITWRIGHT_HOME")
    assert bitwright_home() == platformdirs.user_data_path("bitwright", appauthor=False)


def test_a_job_keeps_its_spec(job: Path, home: Path) -> None:
    assert job.parent == home / "jobs"
    found = store.read_job(job)
    assert found.spec is not None
    assert (found.spec.name, found.state, found.last) == ("first", "created", None)


def test_ids_sort_by_time(tmp_path: Path) -> None:
    made = [store.create(JobSpec("demo", str(tmp_path / "out"))).name for _ in range(5)]
    assert made == sorted(made)
    assert [job.id for job in store.list_jobs()] == made[::-1]


def test_a_job_knows_when_it_was_made(job: Path) -> None:
    assert abs(store.read_job(job).created.timestamp() - time.time()) < 3600


@pytest.mark.parametrize(
    ("end", "state"),
    [
        (Done("out", 1.0, {}), "done"),
        (Failed("bad-input", "m", "h", "prepare", True), "failed"),
        (Failed("cancelled", "m", "h", "tune", False), "cancelled"),
    ],
)
def test_the_last_event_is_the_state(job: Path, end: Done | Failed, state: str) -> None:
    add(job, Stage("prepare"), end)
    found = store.read_job(job)
    assert (found.state, found.last) == (state, end)


def test_a_job_runs_while_its_owner_lives(job: Path) -> None:
    store.claim(job)
    add(job, Stage("tune"))
    assert store.read_job(job).state == "running"


def test_a_job_died_when_its_owner_is_gone_without_a_last_word(job: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owned_by(job, process.pid, psutil.Process(process.pid).create_time())
    assert store.read_job(job).state == "running"
    process.kill()
    process.communicate()
    assert store.read_job(job).state == "died"


def test_another_process_with_the_pid_of_the_owner_is_not_the_owner(job: Path) -> None:
    owned_by(job, os.getpid(), psutil.Process().create_time() - 1000)
    assert store.read_job(job).state == "died"


def test_the_end_of_an_earlier_run_does_not_count(job: Path) -> None:
    add(job, Failed("cancelled", "m", "h", "tune", False))
    store.claim(job)
    assert store.read_job(job).state == "running"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', '{"pid": 1}'])
def test_a_torn_owner_file_is_no_owner(job: Path, text: str) -> None:
    (job / store.OWNER).write_text(text)
    assert store.read_job(job).state == "created"


def test_a_job_with_a_torn_spec_is_still_listed(job: Path) -> None:
    (job / store.SPEC).write_text("{")
    (found,) = store.list_jobs()
    assert (found.id, found.spec) == (job.name, None)


def test_other_folders_are_no_jobs(job: Path) -> None:
    (job.parent / "notes").mkdir()
    (job.parent / "20260101-000000-000000.txt").write_text("")
    assert [found.id for found in store.list_jobs()] == [job.name]


def test_no_home_has_no_jobs() -> None:
    assert store.list_jobs() == []


def test_cleaning_up_removes_the_staging_folder_and_nothing_else(job: Path, tmp_path: Path) -> None:
    mine = store.staging_of(tmp_path / "out", job)
    others = store.staging_of(tmp_path / "out", job.with_name("another"))
    for folder in (mine, others, tmp_path / "out"):
        folder.mkdir()
        (folder / "file").write_text("")
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
    """A job and what its run left beside its output."""
    job = store.create(JobSpec("demo", str(tmp_path / name)))
    folder = store.staging_of(tmp_path / name, job)
    folder.mkdir()
    (folder / "model.safetensors").write_text("half")
    return job, folder


def test_a_sweep_removes_what_dead_runs_left(tmp_path: Path) -> None:
    died, left = staged(tmp_path, "a")
    owned_by(died, os.getpid(), psutil.Process().create_time() - 1000)
    failed, also = staged(tmp_path, "b")
    store.claim(failed)
    add(failed, Failed("internal", "m", "", "tune", False))
    assert sorted(store.sweep()) == sorted([left, also])
    assert not left.exists()
    assert not also.exists()


def test_a_sweep_touches_nothing_else(tmp_path: Path) -> None:
    running, growing = staged(tmp_path, "running")
    store.claim(running)
    _, begun = staged(tmp_path, "just-made")
    done, odd = staged(tmp_path, "done")
    store.claim(done)
    add(done, Done(str(tmp_path / "done"), 1.0, {}))
    stranger = tmp_path / ".mine.bitwright-20260101-000000-000000-abcd"
    stranger.mkdir()
    died = store.create(JobSpec("demo", str(tmp_path / "output")))
    owned_by(died, os.getpid(), psutil.Process().create_time() - 1000)
    (tmp_path / "output").mkdir()
    assert store.sweep() == []
    assert all(folder.is_dir() for folder in (growing, begun, odd, stranger, tmp_path / "output"))


def test_a_sweep_passes_over_jobs_that_cannot_be_read(job: Path, tmp_path: Path) -> None:
    (job / store.SPEC).write_text("{")
    died, left = staged(tmp_path, "a")
    owned_by(died, os.getpid(), psutil.Process().create_time() - 1000)
    assert store.sweep() == [left]
