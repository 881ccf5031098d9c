"""The same jobs from a terminal: every command is one call of `core.api`.

The only part of `core` that writes to a screen.
"""

from __future__ import annotations

from core.cli.commands import main

__all__ = ["main"]
