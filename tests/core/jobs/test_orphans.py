"""When the parent is killed, its child ends and no unfinished output remains."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from core.claim import staging_places
from core.events import Failed
from core.jobs import store, worker
from core.jobs.process import ROOT
from core.spec import JobSpec

FAKE = Path(__file__).with_name("fake_worker.py")
PARENT = """
import sys
from pathlib import Path
from core.jobs import child
job = Path(sys.argv[1])
for events in child.follow_child(job, command=lambda job: [sys.executable, *sys.argv[2:]]):
    for event in events:
        print("event", flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="sends SIGKILL")
@pytest.mark.parametrize("behaviour", ["obedient", "deaf"])
def test_a_child_ends_when_its_parent_is_killed(
    tmp_path: Path, behaviour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BITWRIGHT_HOME", str(tmp_path / "home"))
    job = store.create(JobSpec("demo", str(tmp_path / "out")))
    command = [sys.executable, "-c", PARENT, str(job), str(FAKE), behaviour, str(job)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"event\n"
        children = psutil.Process(parent.pid).children()
        assert len(children) == 1
        assert staging_places(tmp_path / "out", job.name)[0].exists()
        parent.send_signal(signal.SIGKILL)
    gone, alive = psutil.wait_procs(children, timeout=30)
    for process in alive:
        process.kill()
    assert gone
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    last = store.read_job(job).last
    assert isinstance(last, Failed)
    assert (last.code, last.message) == ("cancelled", worker.ORPHANED)
