"""Entry point of `bitwright` and `python -m app`: opens the window, or runs the command line.

The command line is used if a sub-command or an option is given. It is handed to `core.cli` before Qt is imported, so
sub-commands work without a display and start fast.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

COMMANDS = frozenset(
    {"quantize", "estimate", "inspect", "plan", "chat", "bench", "serve", "eval", "convert", "devices", "jobs"}
)
"""The sub-commands of `core.cli`. They take precedence over a folder of the same name."""


def names_a_model(word: str) -> bool:
    """Return whether a single argument is a model to open, rather than a sub-command, an option or a typo."""
    if word in COMMANDS or word.startswith("-"):
        return False
    return word == "demo" or "/" in word or "\\" in word or os.path.exists(word)


def main(arguments: Sequence[str] | None = None) -> int:
    """Open the window, with a model if one is given, or run a sub-command; return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and not (len(given) == 1 and names_a_model(given[0])):
        from core.cli import main as command_line

        return command_line(given)
    from app import qt_libraries

    reason = qt_libraries.problem(os.environ, sys.platform)
    if reason:
        sys.stderr.write(f"{reason}\n`bitwright --help` lists the commands that work in a terminal.\n")
        return 1
    from app import application

    return application.run(given[0] if given else None)


if __name__ == "__main__":
    sys.exit(main())
