"""Looking for optional libraries: what keeps one from being used, in a sentence. Never raises.

A library may be missing, made for another version of Python or of torch, lack a file of the system, or raise anything
at all while it is imported; a model must load without it all the same. Knows no library by name.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import io
import warnings
from types import ModuleType

from core.inference.backends.backend import Missing


@functools.cache
def probe(module: str, package: str, install: str) -> tuple[ModuleType | None, Missing | None]:
    """The module, or why it cannot be used; asked once in a process.

    Args:
        module: its name for `import`; package: its name for people; install: the command that brings it.
    """
    if not _is_there(module):
        return None, Missing(f"{package} is not installed.", install)
    try:
        # What a library prints would get between the answers of a command that writes JSON.
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            return importlib.import_module(module), None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - other people's code at import
        return None, Missing(f"{package} is installed and does not start: {first_line(error)}.", install)


def first_line(error: BaseException) -> str:
    """What an exception says, at most 200 characters of it and no full stop; its class where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200].rstrip(".")


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError, AttributeError):  # a broken parent, or a stand-in without a spec
        return False
