"""Reports of missing displays and libraries, without removing a library from this machine."""

from __future__ import annotations

import subprocess
import sys

import pytest

from app import qt_libraries

LINUX = {"DISPLAY": ":0"}


def without(*names: str) -> qt_libraries.Loads:
    """A loader that finds everything but `names`."""
    return lambda name: name not in names


def test_with_all_libraries_nothing_is_missing() -> None:
    assert qt_libraries.missing(LINUX, without()) == ()


def test_a_library_that_every_window_needs_is_missed() -> None:
    assert qt_libraries.missing({}, without("libEGL.so.1")) == ("libEGL.so.1",)


def test_the_library_that_is_most_often_missing_is_missed_on_x11() -> None:
    assert qt_libraries.missing(LINUX, without("libxcb-cursor.so.0")) == ("libxcb-cursor.so.0",)


def test_x11s_libraries_are_not_needed_where_wayland_works() -> None:
    both = {"DISPLAY": ":0", "WAYLAND_DISPLAY": "wayland-0"}
    assert qt_libraries.missing(both, without("libxcb-cursor.so.0")) == ()


def test_a_platform_that_was_asked_for_has_no_way_out() -> None:
    asked = {"WAYLAND_DISPLAY": "wayland-0", "QT_QPA_PLATFORM": "xcb"}
    assert qt_libraries.missing(asked, without("libxcb-cursor.so.0")) == ("libxcb-cursor.so.0",)


def test_without_a_screen_x11s_libraries_are_not_needed() -> None:
    assert qt_libraries.missing({"QT_QPA_PLATFORM": "offscreen"}, without("libxcb-cursor.so.0")) == ()


@pytest.mark.parametrize(
    ("program", "command"),
    [
        ("apt", "sudo apt install libegl1 libxcb-cursor0"),
        ("dnf", "sudo dnf install libglvnd-egl xcb-util-cursor"),
        ("pacman", "sudo pacman -S libglvnd xcb-util-cursor"),
        ("", ""),
    ],
)
def test_the_command_is_that_of_the_systems_package_manager(program: str, command: str) -> None:
    names = ("libEGL.so.1", "libxcb-cursor.so.0")
    found = qt_libraries.install_command(names, lambda name: f"/usr/bin/{name}" if name == program else None)
    assert found == command


def test_a_package_that_holds_two_libraries_is_named_once() -> None:
    found = qt_libraries.install_command(
        ("libxcb-xkb.so.1", "libxcb-sync.so.1"), lambda name: name if name == "dnf" else None
    )
    assert found == "sudo dnf install libxcb"


@pytest.mark.parametrize(
    ("variables", "platform", "there"),
    [
        ({}, "linux", False),
        ({"DISPLAY": ""}, "linux", False),
        (LINUX, "linux", True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", True),
        ({}, "win32", True),
        ({}, "darwin", True),
    ],
)
def test_a_screen_is_looked_for_where_there_may_be_none(variables: dict[str, str], platform: str, there: bool) -> None:
    assert qt_libraries.has_display(variables, platform) is there


def test_a_missing_screen_is_one_sentence() -> None:
    said = qt_libraries.problem({}, "linux")
    assert ("no display" in said, said.count(". ")) == (True, 0)


def test_a_missing_library_is_named_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qt_libraries, "missing", lambda _variables: ("libxcb-cursor.so.0",))
    said = qt_libraries.problem(LINUX, "linux")
    assert "libxcb-cursor.so.0" in said
    assert "Install" in said


@pytest.mark.skipif(not qt_libraries.loads("libxcb.so.1"), reason="libxcb is not installed here")
def test_a_display_that_does_not_answer_is_known() -> None:
    assert not qt_libraries.answers({"DISPLAY": ":98765"})


def test_as_a_command_it_ends_with_the_answer() -> None:
    command = [sys.executable, "-m", "app.qt_libraries"]
    done = subprocess.run(command, env={"PATH": "/usr/bin"}, capture_output=True, text=True, check=False)
    expected = 1 if sys.platform.startswith("linux") else 0
    assert (done.returncode, bool(done.stderr)) == (expected, bool(expected))


def test_it_never_imports_qt() -> None:
    code = (
        "import sys, app.qt_libraries as q, os; q.problem(os.environ, sys.platform); sys.exit('PySide6' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
