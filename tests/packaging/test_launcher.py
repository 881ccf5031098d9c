"""The launcher: where it lies, what it says, and paths that need quoting."""

from __future__ import annotations

import configparser
import shlex
from pathlib import Path

import pytest

import launcher
import venv_setup


def entry(path: Path) -> configparser.SectionProxy:
    """The one section of a desktop file."""
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(path, encoding="utf-8")
    return parser["Desktop Entry"]


def test_it_lies_where_desktops_look(tmp_path: Path) -> None:
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
def test_a_path_is_quoted_as_the_specification_says(word: str, held: str) -> None:
    assert launcher.exec_line([word]) == held


@pytest.mark.parametrize("given", ["", "relative/folder"])
def test_without_a_folder_of_its_own_the_usual_one_is_taken(given: str) -> None:
    assert launcher.data_folder({"XDG_DATA_HOME": given}) == Path.home() / ".local" / "share"


def test_other_systems_are_told_how_to_start_it() -> None:
    with pytest.raises(venv_setup.SetupError) as refused:
        launcher.install({}, "win32")
    assert "bootstrap.py run" in refused.value.hint
