"""The output folder of a conversion appears complete or not at all, and killed conversions are cleaned up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from core.conversion.staging import ConversionStaging, sweep
from core.errors import OutputProblem, ResultKept
from core.jobs.process import ROOT


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BITWRIGHT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def left(place: Path) -> list[str]:
    """Return the names in `place` except Bitwright's home folder."""
    return sorted(path.name for path in place.iterdir() if path.name != "home")


def test_publish_renames_the_staging_folder_to_the_target(tmp_path: Path, home: Path) -> None:
    with ConversionStaging(tmp_path / "new" / "out") as staging:
        (staging.folder / "file").write_text("x")
        staging.publish()
    assert (tmp_path / "new" / "out" / "file").read_text() == "x"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]
    assert list((home / "conversions").iterdir()) == []


def test_an_empty_target_folder_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with ConversionStaging(tmp_path / "out") as staging:
        staging.publish()
    assert left(tmp_path) == ["out"]


def fail(target: Path, *others: Path) -> None:
    """Start an output, create other files next to it or in its place, and fail."""
    with ConversionStaging(target) as staging:
        (staging.folder / "file").write_text("x")
        for path in others:
            path.parent.mkdir(exist_ok=True)
            path.write_text("x")
        if not target.exists():
            raise KeyError
        staging.publish()


def test_a_failure_removes_the_staging_folder(tmp_path: Path, home: Path) -> None:
    with pytest.raises(KeyError):
        fail(tmp_path / "new" / "deep" / "out")
    assert left(tmp_path) == []
    assert list((home / "conversions").iterdir()) == []


def test_parent_folders_with_other_files_are_kept(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        fail(tmp_path / "new" / "out", tmp_path / "new" / "theirs")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["theirs"]


def test_a_target_that_was_created_meanwhile_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ResultKept, match=r"cannot be moved to .* kept in .*out-finished"):
        fail(tmp_path / "out", tmp_path / "out" / "theirs")
    assert left(tmp_path) == ["out", "out-finished"]
    assert left(tmp_path / "out") == ["theirs"]
    assert left(tmp_path / "out-finished") == ["file"]


def test_a_parent_that_is_a_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputProblem, match="cannot be created"), ConversionStaging(tmp_path / "file" / "out"):
        pass
    assert left(tmp_path) == ["file"]


def killed(target: Path) -> None:
    """Start a conversion in another process and kill it."""
    script = (
        "import os, signal, sys; from pathlib import Path; from core.conversion.staging import ConversionStaging\n"
        "staging = ConversionStaging(Path(sys.argv[1])).__enter__(); (staging.folder / 'half').write_text('x')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(target)], cwd=ROOT, check=False, capture_output=True)
    assert done.returncode != 0


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_the_next_conversion_removes_the_folder_of_a_killed_one(tmp_path: Path) -> None:
    killed(tmp_path / "first")
    assert len(left(tmp_path)) == 2  # the folder and the claim
    with ConversionStaging(tmp_path / "second") as staging:
        staging.publish()
    assert left(tmp_path) == ["second"]


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_record_is_kept_while_the_drive_is_disconnected(tmp_path: Path) -> None:
    drive = tmp_path / "drive"
    drive.mkdir()
    killed(drive / "out")
    drive.rename(tmp_path / "elsewhere")
    assert sweep() == []
    (tmp_path / "elsewhere").rename(drive)
    assert [path.parent for path in sweep()] == [drive]
    assert list(drive.iterdir()) == []


def test_sweep_ignores_a_running_conversion(tmp_path: Path) -> None:
    with ConversionStaging(tmp_path / "out") as staging:
        assert sweep() == []
        assert staging.folder.is_dir()


def test_a_record_cannot_remove_a_folder_of_the_user(tmp_path: Path, home: Path) -> None:
    (tmp_path / "precious").mkdir()
    note = home / "conversions" / "0123456789abcdef"
    note.mkdir(parents=True)
    (note / "staging.json").write_text(f'"{(tmp_path / "precious").as_posix()}"')
    assert sweep() == []
    assert (tmp_path / "precious").is_dir()
    assert not note.exists()
