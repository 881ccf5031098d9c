"""Model names given by users: a Hub id, a path, or `demo`."""

from __future__ import annotations

import os
from typing import Final

from core.files import expanded

DEMO: Final = "demo"


def looks_like_path(name: str) -> bool:
    """Return whether `name` must be a path on this machine and cannot be a Hub id (`owner/name` or `name`)."""
    return name.startswith((".", "/", "~", os.sep)) or "\\" in name or name.endswith(".gguf") or name.count("/") > 1


def absolute(name: str | os.PathLike[str]) -> str:
    """Return `name` as an absolute path if it is a path, else unchanged; child processes have another folder."""
    text = os.fspath(name)
    if text in ("demo", "builtin", ""):
        return text
    path = expanded(text)
    if not isinstance(name, str) or looks_like_path(text) or os.path.lexists(path):
        return str(path.absolute())
    return text
