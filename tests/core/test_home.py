"""Tests of the data folder, also without a home folder."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import platformdirs
import pytest

from core.home import cache_home, home, settings_home

pytestmark = pytest.mark.skipif(os.name == "nt", reason="homes are another matter there")


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("BITWRIGHT_HOME", raising=False)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "temporary"))
    return tmp_path / "temporary"


def usual(monkeypatch: pytest.MonkeyPatch, place: str | Path) -> None:
    monkeypatch.setattr(platformdirs, "user_data_path", lambda *_args, **_more: Path(place))


@pytest.mark.parametrize(
    ("value", "place"), [("~/own", "me/own"), ("sub\n", "sub"), ("  sub  ", "sub"), ("./sub", "sub")]
)
def test_the_variable_may_be_written_in_any_usual_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setenv("BITWRIGHT_HOME", value)
    assert home() == cache_home() == settings_home() == tmp_path / place


@pytest.mark.parametrize("value", ["", "\n"])
def test_an_empty_variable_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("BITWRIGHT_HOME", value)
    usual(monkeypatch, tmp_path / "usual")
    assert home() == tmp_path / "usual"


@pytest.mark.parametrize("place", ["~/.local/share/bitwright", "file/bitwright", "/proc/nothing/bitwright"])
def test_without_a_home_it_is_a_private_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, temporary: Path, place: str
) -> None:
    (tmp_path / "file").touch()
    usual(monkeypatch, place if place.startswith(("~", "/")) else tmp_path / place)
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).startswith("/proc") and access(path, mode))
    found = home()
    assert found.parent == temporary
    assert stat.S_IMODE(found.stat().st_mode) == 0o700
    assert home() == found


def test_a_link_in_the_place_of_the_temporary_folder_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, temporary: Path
) -> None:
    usual(monkeypatch, "~/bitwright")
    (tmp_path / "theirs").mkdir()
    home().rmdir()
    (temporary / f"bitwright-{os.getuid()}").symlink_to(tmp_path / "theirs", target_is_directory=True)
    assert home().parent != temporary


def test_a_folder_that_is_there_is_used_even_where_it_can_only_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "usual").mkdir()
    usual(monkeypatch, tmp_path / "usual")
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    assert home() == tmp_path / "usual"
