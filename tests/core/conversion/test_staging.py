"""A conversion's folder appears whole or not at all, and what a killed one left is swept up."""

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
    """All that lies in `place`, without Bitwright's own folder."""
    return sorted(path.name for path in place.iterdir() if path.name != "home")


def test_what_is_published_gets_its_name(tmp_path: Path, home: Path) -> None:
    with ConversionStaging(tmp_path / "new" / "out") as staging:
        (staging.folder / "file").write_text("x")
        staging.publish()
    assert (tmp_path / "new" / "out" / "file").read_text() == "x"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]
    assert list((home / "conversions").iterdir()) == []


def test_an_empty_folder_may_be_there(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with ConversionStaging(tmp_path / "out") as staging:
        staging.publish()
    assert left(tmp_path) == ["out"]


def fail(target: Path, *others: Path) -> None:
    """Begin an output, see others put something beside it or in its place, and break off."""
    with ConversionStaging(target) as staging:
        (staging.folder / "file").write_text("x")
        for path in others:
            path.parent.mkdir(exist_ok=True)
            path.write_text("x")
        if not target.exists():
            raise KeyError
        staging.publish()


def test_a_failure_leaves_nothing(tmp_path: Path, home: Path) -> None:
    with pytest.raises(KeyError):
        fail(tmp_path / "new" / "deep" / "out")
    assert left(tmp_path) == []
    assert list((home / "conversions").iterdir()) == []


def test_parents_that_somebody_uses_stay(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        fail(tmp_path / "new" / "out", tmp_path / "new" / "theirs")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["theirs"]


def test_a_place_that_was_taken_meanwhile_is_said(tmp_path: Path) -> None:
    with pytest.raises(ResultKept, match=r"cannot be put into place.* kept in .*out-finished"):
        fail(tmp_path / "out", tmp_path / "out" / "theirs")
    assert left(tmp_path) == ["out", "out-finished"]
    assert left(tmp_path / "out") == ["theirs"]
    assert left(tmp_path / "out-finished") == ["file"]


def test_a_parent_that_is_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputProblem, match="cannot be made"), ConversionStaging(tmp_path / "file" / "out"):
        pass
    assert left(tmp_path) == ["file"]


def killed(target: Path) -> None:
    """Begin a conversion in another process, and kill that outright."""
    script = (
        "import os, signal, sys; from pathlib import Path; from core.conversion.staging import Staging\n"
        "staging = Staging(Path(sys.argv[1])).__enter__(); (staging.folder / 'half').write_text('x')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(target)], cwd=ROOT, check=False, capture_output=True)
    assert done.returncode != 0


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_the_next_conversion_sweeps_up_after_a_killed_one(tmp_path: Path) -> None:
    killed(tmp_path / "first")
    assert len(left(tmp_path)) == 2  # the folder and the claim
    with ConversionStaging(tmp_path / "second") as staging:
        staging.publish()
    assert left(tmp_path) == ["second"]


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_note_stays_while_the_drive_is_away(tmp_path: Path) -> None:
    drive = tmp_path / "drive"
    drive.mkdir()
    killed(drive / "out")
    drive.rename(tmp_path / "elsewhere")
    assert sweep() == []
    (tmp_path / "elsewhere").rename(drive)
    assert [path.parent for path in sweep()] == [drive]
    assert list(drive.iterdir()) == []


def test_one_that_runs_is_left_alone(tmp_path: Path) -> None:
    with ConversionStaging(tmp_path / "out") as staging:
        assert sweep() == []
        assert staging.folder.is_dir()


def test_a_note_cannot_name_a_strangers_folder(tmp_path: Path, home: Path) -> None:
    (tmp_path / "precious").mkdir()
    note = home / "conversions" / "0123456789abcdef"
    note.mkdir(parents=True)
    (note / "staging.json").write_text(f'"{(tmp_path / "precious").as_posix()}"')
    assert sweep() == []
    assert (tmp_path / "precious").is_dir()
    assert not note.exists()
