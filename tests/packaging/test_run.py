"""Tests of `bootstrap.py run`, which opens the window or runs the demo in the terminal."""

from __future__ import annotations

import subprocess

import pytest

import bootstrap
import venv_setup

PYTHON = [str(venv_setup.PYTHON), "-P", "-m"]


@pytest.fixture(params=[True, False], ids=["display", "no display"])
def window(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Simulate a machine on which a window can or cannot be opened."""

    def look(command: list[str], **_options: object) -> subprocess.CompletedProcess[str]:
        assert command == [*PYTHON, "app.qt_libraries"]
        return subprocess.CompletedProcess(command, 0 if request.param else 1)

    monkeypatch.setattr(subprocess, "run", look)
    return bool(request.param)


def test_run_opens_the_window_with_the_demo_or_falls_back(window: bool) -> None:
    assert bootstrap.what_to_run(()) == ([*PYTHON, "app", "demo"] if window else [*PYTHON, "core.cli.demo"])


def test_run_takes_a_model_for_the_window(window: bool) -> None:
    assert bootstrap.what_to_run(("a/b",)) == [*PYTHON, "app" if window else "core.cli.demo", "a/b"]


def test_the_terminal_can_be_requested(window: bool) -> None:
    assert bootstrap.what_to_run(("--terminal",)) == [*PYTHON, "core.cli.demo"]
    assert bootstrap.what_to_run(("--terminal", "out")) == [*PYTHON, "core.cli.demo", "out"]


def test_the_launcher_command_takes_no_arguments() -> None:
    assert bootstrap.parse(["launcher"]) == bootstrap.Request("launcher")
    with pytest.raises(venv_setup.SetupError):
        bootstrap.parse(["launcher", "x"])
