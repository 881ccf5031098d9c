"""Tests of claims: an output folder has one writer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from core import claim, lock
from core.claim import Claim, is_filled_in_place, is_free, is_mount_point, refuse_if_claimed, remove_stale
from core.errors import OutputProblem
from core.jobs.process import ROOT
from core.lock import here

HOLD = """
import sys
from pathlib import Path
from core.claim import Claim
with Claim(Path(sys.argv[1]), "theirs", "job theirs"):
    print("claimed", flush=True)
    input()
"""


@contextmanager
def claimed_by_another(target: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", HOLD, str(target)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"claimed\n"
        yield process
        process.kill()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_second_is_told_who_the_first_is(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with claimed_by_another(target) as process:
        with pytest.raises(OutputProblem, match=rf"Another run is writing to .*out \(process {process.pid} on "):
            Claim(target, "mine", "job mine").__enter__()
        with pytest.raises(OutputProblem, match="Another run"):
            refuse_if_claimed(target)
    with Claim(target, "mine", "job mine"):  # a claim of the dead is no claim
        pass
    assert names(tmp_path) == []


@pytest.mark.parametrize("spelling", ["out/", "./out", "new/../out", "link/out"])
def test_the_same_place_spelled_otherwise_is_the_same(tmp_path: Path, spelling: str) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    with Claim(tmp_path / "out", "one", "one"), pytest.raises(OutputProblem, match="Another run"):
        Claim(Path(os.path.join(tmp_path, spelling)), "two", "two").__enter__()


def test_a_folder_inside_another_output_is_refused(tmp_path: Path) -> None:
    with Claim(tmp_path / "out", "one", "one"), pytest.raises(OutputProblem, match="Another run"):
        Claim(tmp_path / "out" / "deep" / "inner", "two", "two").__enter__()
    assert names(tmp_path) == []


def test_neighbours_do_not_meet(tmp_path: Path) -> None:
    with Claim(tmp_path / "one", "one", "one"), Claim(tmp_path / "two", "two", "two"):
        assert len(names(tmp_path)) == 2
    assert names(tmp_path) == []


def test_the_same_work_may_enter_again(tmp_path: Path) -> None:
    with Claim(tmp_path / "out", "one", "one"):
        with Claim(tmp_path / "out", "one", "one"):
            refuse_if_claimed(tmp_path / "out")
        with pytest.raises(OutputProblem, match="Another run"):
            Claim(tmp_path / "out", "two", "two").__enter__()
    assert names(tmp_path) == []


def test_the_folders_above_are_made_and_go_if_they_stay_empty(tmp_path: Path) -> None:
    with Claim(tmp_path / "a" / "b" / "out", "one", "one"):
        assert (tmp_path / "a" / "b").is_dir()
    assert names(tmp_path) == []
    with Claim(tmp_path / "a" / "b" / "out", "one", "one"):
        (tmp_path / "a" / "theirs").touch()
    assert names(tmp_path / "a") == ["theirs"]


def foreign(target: Path) -> Path:
    file = target.with_name(f".{target.name}.bitwright-claim")
    file.write_text(json.dumps({**here().to_json(), "host": "other", "boot": "other"}))
    return file


def test_a_claim_of_another_machine_is_never_taken_for_dead(tmp_path: Path) -> None:
    file = foreign(tmp_path / "out")
    with pytest.raises(OutputProblem, match="on other") as caught:
        Claim(tmp_path / "out", "mine", "mine").__enter__()
    assert f"remove {file}" in caught.value.hint
    remove_stale(tmp_path / "out", "mine")
    assert file.exists()


def test_without_locks_the_process_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_descriptor: int, *, shared: bool) -> None:
        return None

    monkeypatch.setattr(lock, "_lock", none)
    with Claim(tmp_path / "out", "one", "one"), pytest.raises(OutputProblem, match="Another run"):
        Claim(tmp_path / "out", "two", "two").__enter__()
    file = tmp_path / ".out.bitwright-claim"
    file.write_text(json.dumps({**here().to_json(), "started": 1.0}))
    with Claim(tmp_path / "out", "two", "two"):
        pass


def test_a_damaged_claim_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / ".out.bitwright-claim").write_bytes(b"{\xff")
    with Claim(tmp_path / "out", "one", "one"):
        pass
    assert names(tmp_path) == []


def test_a_folder_that_nothing_can_be_renamed_onto_is_filled_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out with space"
    target.mkdir()
    assert not is_filled_in_place(target)
    mounts = tmp_path / "mountinfo"
    escaped = str(target.resolve()).replace(" ", "\\040")
    mounts.write_text(f"29 1 8:1 / / rw - ext4 /dev/sda1 rw\n36 29 8:1 /x {escaped} rw - ext4 /dev/sda1 rw\n")
    monkeypatch.setattr(claim, "_MOUNTS", mounts)
    assert is_mount_point(target)
    assert is_filled_in_place(target)
    (target / "lost+found").mkdir()
    with Claim(target, "one", "one"):
        assert names(target) == [".bitwright-claim", "lost+found"]
        assert is_free(target)
    (target / "file").touch()
    assert not is_free(target)


def test_what_a_killed_run_left_in_a_folder_does_not_keep_the_next_from_it(tmp_path: Path) -> None:
    (tmp_path / "out" / ".bitwright-token").mkdir(parents=True)
    assert is_filled_in_place(tmp_path / "out")
    (tmp_path / "out" / "theirs").touch()
    assert not is_filled_in_place(tmp_path / "out")
