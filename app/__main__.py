"""`bitwright` and `python -m app`: the window, or the command line where a sub-command or an option is given.

Decides which of the two was meant and starts it. Sub-commands are handed to `core.cli` before anything of Qt is
imported, so they work, and start as fast, on a machine without a display.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

COMMANDS = frozenset(
    {"quantize", "estimate", "inspect", "plan", "chat", "bench", "serve", "eval", "convert", "devices", "jobs"}
)
"""The sub-commands of `core.cli`, whose names win over a folder of the same name."""


def names_a_model(word: str) -> bool:
    """Whether a lone argument is a model to open, rather than a sub-command, an option or a slip of the keyboard."""
    if word in COMMANDS or word.startswith("-"):
        return False
    return word == "demo" or "/" in word or "\\" in word or os.path.exists(word)


def main(arguments: Sequence[str] | None = None) -> int:
    """Open the window, with a model if one is given, or run a sub-command; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and not (len(given) == 1 and names_a_model(given[0])):
        from core.cli import main as command_line

        return command_line(given)
    from app import qt_libraries

    reason = qt_libraries.problem(os.environ, sys.platform)
    if reason:
        sys.stderr.write(f"{reason}\n`bitwright --help` lists what works in a terminal.\n")
        return 1
    from app import application

    return application.run(given[0] if given else None)


if __name__ == "__main__":
    sys.exit(main())
