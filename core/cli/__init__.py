"""The command line. Every sub-command is one call of `core.api`.

This is the only package of `core` that prints.
"""

from __future__ import annotations

from core.cli.commands import main

__all__ = ["main"]
