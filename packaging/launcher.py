"""Installation of a launcher (`.desktop` file and icon) on a Linux desktop for the current user.

Standard library only.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from venv_setup import PYTHON, ROOT, SetupError

TEMPLATE = ROOT / "packaging" / "linux" / "bitwright.desktop"
ICON = ROOT / "resources" / "icons" / "bitwright.svg"


def install(variables: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path:
    """Write or replace the launcher and return its path.

    Raises:
        SetupError: the system is not Linux, or the files cannot be written.
    """
    if not platform.startswith("linux"):
        raise SetupError(
            "Launchers are supported on Linux only.", "Start Bitwright with: python packaging/bootstrap.py run"
        )
    data = data_folder(variables)
    icon = data / "icons" / "hicolor" / "scalable" / "apps" / "bitwright.svg"
    launcher = data / "applications" / "bitwright.desktop"
    text = TEMPLATE.read_text(encoding="utf-8")
    text = text.replace("@EXEC@", exec_line([str(PYTHON), "-P", "-m", "app"])).replace("@ICON@", escaped(str(icon)))
    try:
        icon.parent.mkdir(parents=True, exist_ok=True)
        launcher.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ICON, icon)
        temporary = launcher.with_name(".bitwright.desktop.tmp")
        temporary.write_text(text, encoding="utf-8")
        temporary.chmod(0o755)
        temporary.replace(launcher)
    except OSError as error:
        raise SetupError(
            f"The launcher cannot be written: {error}.", "Check the permissions of that folder."
        ) from error
    return launcher


def data_folder(variables: Mapping[str, str]) -> Path:
    """Return the user's data folder (XDG Base Directory Specification)."""
    given = variables.get("XDG_DATA_HOME", "")
    return Path(given) if os.path.isabs(given) else Path.home() / ".local" / "share"


def exec_line(command: list[str]) -> str:
    """Return a command in the format of the key Exec: words quoted where needed, `%` doubled."""
    return escaped(" ".join(_quoted(word) for word in command))


def escaped(value: str) -> str:
    """Return a value with the escapes of desktop files."""
    return value.replace("\\", "\\\\").replace("\n", "\\n")


def _quoted(word: str) -> str:
    plain = word.replace("%", "%%")
    if all(char.isalnum() or char in "%+-./:=@_" for char in plain):
        return plain
    for char in '\\"`$':
        plain = plain.replace(char, f"\\{char}")
    return f'"{plain}"'
