"""Where Bitwright keeps what is its own. Imports next to nothing: the window asks before its first paint."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """Bitwright's own data folder; the environment variable BITWRIGHT_HOME moves it."""
    moved = os.environ.get("BITWRIGHT_HOME")
    if moved:
        return Path(moved).absolute()
    import platformdirs

    return platformdirs.user_data_path("bitwright", appauthor=False)
