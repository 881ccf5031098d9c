"""The entry point: sub-commands without Qt, a model opens the window, a missing display is reported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.__main__ import COMMANDS, main, names_a_model
from core.cli import commands

SCREENS = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
QUIET = {name: value for name, value in os.environ.items() if name not in SCREENS}


def call(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m app ARGUMENTS` without a display."""
    command = [sys.executable, "-m", "app", *arguments]
    return subprocess.run(command, env={**QUIET, **variables}, capture_output=True, text=True, check=False, timeout=120)


def test_it_knows_every_sub_command() -> None:
    named = {command.name or getattr(command.callback, "__name__", "") for command in commands.app.registered_commands}
    assert named == COMMANDS


@pytest.mark.parametrize(
    ("word", "model"),
    [
        ("demo", True),
        ("Qwen/Qwen3-0.6B", True),
        ("https://huggingface.co/a/b", True),
        ("./folder", True),
        ("chat", False),
        ("--help", False),
        ("quantise", False),
    ],
)
def test_a_model_is_told_from_a_command_and_a_slip(word: str, model: bool) -> None:
    assert names_a_model(word) is model


def test_a_folder_that_is_called_like_a_command_is_not_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "chat").mkdir()
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert [names_a_model(word) for word in ("chat", "mine")] == [False, True]


def test_a_slip_is_answered_by_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantise"]) == 2
    assert "No such command" in capsys.readouterr().err


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere there is always a screen")
def test_without_a_screen_it_says_so_in_two_lines() -> None:
    done = call()
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 2)
    assert "no display" in done.stderr


def test_a_sub_command_never_imports_qt() -> None:
    code = (
        "import sys; from app.__main__ import main; main(['--version']); main(['jobs']); "
        "sys.exit(any(name.startswith('PySide6') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], env=QUIET, capture_output=True, check=False).returncode == 0
