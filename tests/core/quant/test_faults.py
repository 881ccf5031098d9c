"""Runs in which one file operation fails: nothing that was tuned is lost, and every end is told in a sentence."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from core import files, recipes
from core.bitsmap import BitsMap
from core.events import BlockDone, Done, Event, Failed
from core.jobs import store
from core.jobs.inline import run_inline
from core.schemes import LayerScheme
from core.spec import JobSpec
from tests.core.faults import Faults, injected
from tests.core.tiny_model import save_model

TEXT = "The quick brown fox jumps over the lazy dog, and the dog, being lazy, lets it. " * 60


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_model(tmp_path_factory.mktemp("source") / "model")
    (folder / "LICENSE").write_text("free")
    return folder


@pytest.fixture
def run(model: Path, own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Event]]:
    """A run whose file operation that begins with `start` fails, once or from then on."""
    monkeypatch.setattr(files, "_RETRY_DELAYS", (0.0,))
    (tmp_path / "text.txt").write_text(TEXT)

    def go(start: str, code: int, *, lasting: bool = False) -> list[Event]:
        recipe = recipes.load("quick", iters=1, samples=4, seqlen=16, batch_size=4)
        scheme = BitsMap(LayerScheme(4, 32, True))
        job = store.create(JobSpec(str(model), str(tmp_path / "out"), recipe, scheme, str(tmp_path / "text.txt")))
        events: list[Event] = []
        faults = Faults(tmp_path, match=start, code=code, lasting=lasting)
        with injected(faults):
            outcome = run_inline(job, events.append)
            if outcome.state != "done":
                store.clean_up(job)
        assert faults.met, f"nothing begins with {start!r}"
        return events

    return go


def outputs(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name not in ("home", "text.txt"))


@pytest.mark.parametrize(
    ("start", "code", "lasting", "kept", "weights"),
    [
        ("fsync .out.bitwright-JOB/model.safetensors.partial", errno.EIO, False, "out-unfinished", ".partial"),
        ("open .out.bitwright-JOB/.bitwright.json", errno.ENOSPC, False, "out-finished", ""),
        ("rename out", errno.EACCES, True, ".out.bitwright-JOB", ""),
    ],
)
def test_a_failure_after_the_last_block_keeps_what_was_tuned(
    run: Callable[..., list[Event]], tmp_path: Path, start: str, code: int, lasting: bool, kept: str, weights: str
) -> None:
    events = run(start, code, lasting=lasting)
    last = events[-1]
    assert isinstance(last, Failed)
    assert (last.code, last.before_tuning) == ("kept", False)
    assert len([event for event in events if isinstance(event, BlockDone)]) == 2
    (place,) = (tmp_path / name for name in outputs(tmp_path))
    assert str(place) in last.message
    assert "bug" not in last.message + last.hint
    assert place.name.startswith(kept.replace("JOB", ""))
    for name in (f"model.safetensors{weights}", "config.json", "tokenizer.json", "LICENSE"):
        assert (place / name).stat().st_size > 0


@pytest.mark.parametrize("start", ["copy .out.bitwright-JOB/tokenizer.json", "open .out.bitwright-claim"])
def test_side_files_that_cannot_be_written_are_found_before_any_block(
    run: Callable[..., list[Event]], tmp_path: Path, start: str
) -> None:
    events = run(start, errno.ENOSPC)
    last = events[-1]
    assert isinstance(last, Failed)
    assert last.before_tuning
    assert "bug" not in last.message + last.hint
    assert not [event for event in events if isinstance(event, BlockDone)]
    assert outputs(tmp_path) == []


@pytest.mark.parametrize(
    "start", ["rename out", "write home/jobs/JOB/events.jsonl", "write .out.bitwright-JOB/model.safetensors"]
)
def test_what_passes_by_itself_costs_nothing(run: Callable[..., list[Event]], tmp_path: Path, start: str) -> None:
    assert isinstance(run(start, errno.EIO)[-1], Done)
    assert outputs(tmp_path) == ["out"]
