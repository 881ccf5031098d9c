"""Access to llama-cpp-python for tests: the installed one, or that of the interpreter BITWRIGHT_LLAMA_PYTHON."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

_PRINT_VERSION = "import sys, sysconfig; print(sys.version_info[:2], sysconfig.get_paths()['platlib'], sep='|')"


def need() -> None:
    """Make `llama_cpp` importable for the rest of the session, or skip the test.

    The other interpreter's packages are appended to the path, so that all other imports stay those of this environment.
    """
    if importlib.util.find_spec("llama_cpp") is not None:
        return
    named = os.environ.get("BITWRIGHT_LLAMA_PYTHON")
    if named:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run(
            [named, "-c", _PRINT_VERSION], env=environment, capture_output=True, text=True, check=True
        )
        version, _, folder = done.stdout.strip().partition("|")
        if version == str(tuple(sys.version_info[:2])):
            sys.path.append(folder)
            importlib.invalidate_caches()
            return
    pytest.skip("needs llama-cpp-python, here or in the interpreter that BITWRIGHT_LLAMA_PYTHON names")
