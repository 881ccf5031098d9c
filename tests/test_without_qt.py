"""On a machine where Qt cannot be loaded, the tests of the window are skipped with the reason, and all others run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REASON = "libEGL.so.1: cannot open shared object file"


def test_a_machine_that_lacks_a_library_of_qts_runs_the_other_tests(tmp_path: Path) -> None:
    broken = tmp_path / "PySide6"
    broken.mkdir()
    (broken / "__init__.py").write_text(f"raise ImportError({REASON!r})\n")
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "tests/app/test_state.py", "tests/core/test_schemes.py"]
    variables = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert REASON in done.stdout
    assert "1 skipped" in done.stdout
