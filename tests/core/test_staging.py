"""Tests of staging folders that become outputs, and of results that could not be moved."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from core import claim, files
from core.errors import Cancelled, DiskFull, OutputProblem, ResultKept
from core.staging import UNFINISHED, Staging, remove


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_RETRY_DELAYS", (0.0, 0.0))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def filled(staging: Staging) -> None:
    (staging.folder / "config.json").write_text("{}")
    (staging.folder / "awq").mkdir()
    (staging.folder / "awq" / "model.safetensors").write_text("weights")


class Failing:
    """Return an `os.rename` that fails `times` times for the targets that `onto` selects."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, code: int, times: int, onto: str = "") -> None:
        self.left, self._code, self._onto, self._real = times, code, onto, os.rename
        monkeypatch.setattr(os, "rename", self)

    def __call__(self, source: Any, target: Any) -> None:
        if self.left and Path(target).name.startswith(self._onto):
            self.left -= 1
            raise OSError(self._code, os.strerror(self._code))
        self._real(source, target)


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.EBUSY, errno.EDQUOT])
def test_a_rename_that_fails_once_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    Failing(monkeypatch, code, 1)
    with Staging(tmp_path / "out", "token", "one") as staging:
        filled(staging)
        staging.publish()
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["awq", "config.json"]


def test_what_cannot_be_put_into_place_is_kept_under_a_name_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def publish() -> None:
        with Staging(tmp_path / "out", "token", "one") as staging:
            filled(staging)
            staging.publish()

    (tmp_path / "out-finished").mkdir()
    failing = Failing(monkeypatch, errno.EIO, 3)
    with pytest.raises(
        ResultKept, match=rf"The output cannot be moved to {tmp_path}/out: .*; .* {tmp_path}/out-finished-2"
    ):
        publish()
    assert failing.left == 0
    assert names(tmp_path) == ["out-finished", "out-finished-2"]
    assert names(tmp_path / "out-finished-2") == ["awq", "config.json"]


def test_where_no_name_can_be_given_it_is_kept_as_it_is_and_never_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def publish() -> None:
        with Staging(tmp_path / "out", "token", "one") as staging:
            filled(staging)
            staging.publish()

    Failing(monkeypatch, errno.EACCES, 1000)
    with pytest.raises(ResultKept, match=r"\.out\.bitwright-token"):
        publish()
    assert names(tmp_path) == [".out.bitwright-token"]
    assert not remove(tmp_path / ".out.bitwright-token")
    assert names(tmp_path / ".out.bitwright-token") == ["awq", "config.json"]


def breaking_off(target: Path, error: BaseException, *, late: bool) -> Staging:
    staging = Staging(target, "token", "one")

    def work() -> None:
        with staging:
            filled(staging)
            with staging.kept_on_failure("the tuned layers") if late else contextlib.nullcontext():
                raise error

    with pytest.raises((type(error), ResultKept)) as caught:
        work()
    assert isinstance(caught.value, ResultKept) == (staging.kept is not None)
    return staging


def test_a_failure_before_the_work_is_done_leaves_nothing(tmp_path: Path) -> None:
    breaking_off(tmp_path / "new" / "out", OSError(errno.ENOSPC, "No space"), late=False)
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space"), DiskFull("Full."), ZeroDivisionError("x")])
def test_a_failure_after_it_keeps_all(tmp_path: Path, error: Exception) -> None:
    staging = breaking_off(tmp_path / "out", error, late=True)
    assert staging.kept == tmp_path / "out-unfinished"
    assert names(tmp_path) == ["out-unfinished"]
    assert names(tmp_path / "out-unfinished") == ["awq", "config.json"]


@pytest.mark.parametrize("error", [Cancelled("Stopped."), KeyboardInterrupt()])
def test_a_stop_by_the_user_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    breaking_off(tmp_path / "out", error, late=True)
    assert names(tmp_path) == []


def test_all_is_durable_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    renamed: list[int] = []
    real_open, real_rename = os.open, os.rename
    opened: dict[int, str] = {}

    def note(path: Any, *rest: Any, **more: Any) -> int:
        descriptor = real_open(path, *rest, **more)
        opened[descriptor] = os.fspath(path)
        return descriptor

    monkeypatch.setattr(os, "open", note)
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(opened[descriptor]))

    def rename(*both: str) -> None:
        renamed.append(len(synced))
        real_rename(*both)

    monkeypatch.setattr(os, "rename", rename)
    with Staging(tmp_path / "out", "token", "one") as staging:
        filled(staging)
        everything = {str(path) for path in staging.folder.rglob("*") if path.name != UNFINISHED} | {
            str(staging.folder)
        }
        staging.publish()
    (before,) = renamed
    assert everything <= set(synced[:before])
    assert str(tmp_path) in synced[before:]


def test_a_mount_point_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "volume"
    target.mkdir()
    (target / "lost+found").mkdir()
    monkeypatch.setattr(claim, "is_mount_point", lambda folder: folder == target)
    moved: list[str] = []
    real = os.rename

    def rename(one: str, two: str) -> None:
        moved.append(Path(two).name)
        real(one, two)

    monkeypatch.setattr(os, "rename", rename)
    with Staging(target, "token", "one") as staging:
        assert staging.folder.parent == target
        filled(staging)
        staging.publish()
    assert names(target) == ["awq", "config.json", "lost+found"]
    assert moved == ["awq", "config.json"]  # what makes it a model comes last
    assert names(tmp_path) == ["volume"]


def test_a_mount_point_that_cannot_be_filled_keeps_all_in_one_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def publish() -> None:
        with Staging(target, "token", "one") as staging:
            filled(staging)
            staging.publish()

    target = tmp_path / "volume"
    target.mkdir()
    monkeypatch.setattr(claim, "is_mount_point", lambda folder: folder == target)
    Failing(monkeypatch, errno.EIO, 3, onto="config.json")
    with pytest.raises(ResultKept, match="volume/finished"):
        publish()
    assert names(target) == ["finished"]
    assert names(target / "finished") == ["awq", "config.json"]


def test_room_is_held_for_the_last_files(tmp_path: Path) -> None:
    with Staging(tmp_path / "out", "token", "one") as staging:
        mark = staging.folder / UNFINISHED
        assert mark.stat().st_size >= 1 << 20
        staging.drop_ballast()
        assert mark.stat().st_size == 0


def test_a_place_that_is_taken_meanwhile_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "theirs").touch()
    with pytest.raises(OutputProblem, match="no longer empty"):
        Staging(tmp_path / "out", "token", "one").__enter__()
    assert names(tmp_path) == ["out"]


def test_only_marked_folders_are_removed(tmp_path: Path) -> None:
    for name in ("empty", "marked", "strange"):
        (tmp_path / name).mkdir()
    (tmp_path / "marked" / UNFINISHED).touch()
    (tmp_path / "marked" / "link").symlink_to(tmp_path / "strange", target_is_directory=True)
    (tmp_path / "strange" / "precious").touch()
    assert [remove(tmp_path / name) for name in ("empty", "marked", "strange", "nothing")] == [True, True, False, False]
    assert (tmp_path / "strange" / "precious").exists()
