"""The text by which a user names a model: a Hub id, a path, or `demo`. Reads no model."""

from __future__ import annotations

import os
from typing import Final

from core.files import expanded

DEMO: Final = "demo"


def looks_like_path(name: str) -> bool:
    """Whether `name` can only be meant as a path on this machine, not as a Hub id (`owner/name` or `name`)."""
    return name.startswith((".", "/", "~", os.sep)) or "\\" in name or name.endswith(".gguf") or name.count("/") > 1


def absolute(name: str | os.PathLike[str]) -> str:
    """`name` as an absolute path where it is a path (a child's working folder is not the user's), else as it is."""
    text = os.fspath(name)
    if text in ("demo", "builtin", ""):
        return text
    path = expanded(text)
    if not isinstance(name, str) or looks_like_path(text) or os.path.lexists(path):
        return str(path.absolute())
    return text
