"""Imports of the window's process: never torch, and nothing slow before the first paint."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

PAGES = """
import importlib, json, sys
import app.frame.main_window
from app.frame.page_stack import PAGES
for page in PAGES:
    importlib.import_module(page.module)
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""
FIRST_PAINT = """
import enum, json, os, sys
made, make = [], enum.EnumType.__call__

def noted(cls, value, *rest, **named):
    made.append(str(value))
    return make(cls, value, *rest, **named)

enum.EnumType.__call__ = noted
import PySide6.QtWidgets
cheap = "AlignmentFlag" not in made
from app.application import make_application
from app.logs import LogFeed
from app.frame.main_window import MainWindow
from app.state import State
from app.theme import Theme
from pathlib import Path

def painted():
    names = {name.split(".")[0] for name in sys.modules}
    if cheap and "AlignmentFlag" in made:
        names.add("all enumerations of Qt")
    print(json.dumps(sorted(names)), flush=True)
    os._exit(0)

application = make_application()
window = MainWindow(Theme(), State(Path(sys.argv[1])), LogFeed())
window.painted.connect(painted)
window.show()
application.exec()
"""


def imported_by(code: str, *arguments: str) -> Any:
    """Return the top-level names of all modules that are loaded after `code`."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_window_and_its_pages_never_import_torch() -> None:
    assert imported_by(PAGES) & {"torch", "transformers", "datasets", "numba"} == set()


def test_nothing_heavy_is_imported_before_the_first_paint(tmp_path: Any) -> None:
    heavy = {"torch", "transformers", "numpy", "pyqtgraph", "huggingface_hub", "typer", "rich", "pyarrow", "psutil"}
    assert imported_by(FIRST_PAINT, str(tmp_path / "window.ini")) & {*heavy, "all enumerations of Qt"} == set()
