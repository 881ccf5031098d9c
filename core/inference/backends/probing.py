"""Import of optional libraries, with the reason as one sentence if a library cannot be used.

A library may be missing, be built for another version of Python or torch, need a missing system library, or raise any
exception at import. None of this may keep a model from loading, so no function here raises.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import io
import warnings
from types import ModuleType

from core.inference.backends.backend import MissingRequirement


@functools.cache
def probe(module: str, package: str, install: str) -> tuple[ModuleType | None, MissingRequirement | None]:
    """Import `module` and return it, or the reason why it cannot be used; the result is cached.

    Args:
        module: name of the module to import.
        package: name for display.
        install: command that installs the package.
    """
    if not _is_installed(module):
        return None, MissingRequirement(f"{package} is not installed.", install)
    try:
        # Output printed at import would corrupt the output of commands that write JSON.
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            return importlib.import_module(module), None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - third-party code at import
        return None, MissingRequirement(f"{package} is installed but cannot be imported: {first_line(error)}.", install)


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, at most 200 characters without full stop, or its class name."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200].rstrip(".")


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError, AttributeError):  # a broken parent package, or a module without a spec
        return False
