"""Tests of the launcher: its path, its contents, and quoted paths."""

from __future__ import annotations

import configparser
import shlex
from pathlib import Path

import pytest

import launcher
import venv_setup


def entry(path: Path) -> configparser.SectionProxy:
    """Return the only section of a desktop file."""
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(path, encoding="utf-8")
    return parser["Desktop Entry"]


def test_the_launcher_is_in_the_applications_folder(tmp_path: Path) -> None:
    made = launcher.install({"XDG_DATA_HOME": str(tmp_path)}, "linux")
    assert made == tmp_path / "applications" / "bitwright.desktop"
    assert (tmp_path / "icons" / "hicolor" / "scalable" / "apps" / "bitwright.svg").is_file()


def test_it_starts_the_window_of_this_environment(tmp_path: Path) -> None:
    values = entry(launcher.install({"XDG_DATA_HOME": str(tmp_path)}, "linux"))
    assert shlex.split(values["Exec"])[1:] == ["-P", "-m", "app", "%u"]
    assert shlex.split(values["Exec"])[0] == str(venv_setup.PYTHON)
    assert (values["Type"], values["Terminal"], values["Name"]) == ("Application", "false", "Bitwright")
    assert "@" not in values["Icon"]


def test_a_second_call_replaces_the_first(tmp_path: Path) -> None:
    for _ in range(2):
        made = launcher.install({"XDG_DATA_HOME": str(tmp_path)}, "linux")
    assert [path.name for path in made.parent.iterdir()] == ["bitwright.desktop"]


@pytest.mark.parametrize(
    ("word", "held"),
    [
        ("/plain/path", "/plain/path"),
        ("/my häuschen/x", '"/my häuschen/x"'),
        ("/50%/x", "/50%%/x"),
        ('/a"b', '"/a\\\\"b"'),
        ("/a$b`c", '"/a\\\\$b\\\\`c"'),
        ("/a\\b", '"/a\\\\\\\\b"'),
    ],
)
def test_a_path_is_quoted_according_to_the_specification(word: str, held: str) -> None:
    assert launcher.exec_line([word]) == held


@pytest.mark.parametrize("given", ["", "relative/folder"])
def test_without_xdg_data_home_the_default_folder_is_used(given: str) -> None:
    assert launcher.data_folder({"XDG_DATA_HOME": given}) == Path.home() / ".local" / "share"


def test_other_systems_are_refused_with_a_hint() -> None:
    with pytest.raises(venv_setup.SetupError) as refused:
        launcher.install({}, "win32")
    assert "bootstrap.py run" in refused.value.hint
