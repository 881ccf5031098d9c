"""Conversion of exceptions to `Failed` events, and of `Failed` events to typed errors. Does not import torch."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from pathlib import Path

from core.errors import BitwrightError, ResultKept, by_code, no_memory
from core.events import BlockStarted, Event, Failed, Stage
from core.files import reason
from core.private_files import append_private

_DISK_FULL_ERRNOS = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
NOT_BAD_INPUT = {"internal", "child-died", "cancelled", "kept"}
"""Error codes that never mean bad input. The log is kept for these even if the run failed before tuning."""


class RunProgress:
    """The progress of a run, derived from its events.

    Attributes:
        stage: Name of the current stage.
        before_tuning: No block has been started yet.
    """

    def __init__(self) -> None:
        self.stage = "prepare"
        self.before_tuning = True

    def update(self, event: Event) -> None:
        """Update the progress from an event of the run."""
        if isinstance(event, Stage):
            self.stage = event.name
        elif isinstance(event, BlockStarted):
            self.before_tuning = False


def failed_event(error: BaseException, progress: RunProgress, log: Path) -> Failed:
    """Return the `Failed` event for `error`. The traceback of an unexpected error is appended to `log`."""
    if not isinstance(error, BitwrightError) or isinstance(error, ResultKept):
        write_traceback(error, log)
    code, message, hint = _explain(error, log)
    return Failed(code, message, hint, progress.stage, progress.before_tuning and code not in NOT_BAD_INPUT)


def error_of_event(event: Failed) -> BitwrightError:
    """Return the typed error for a `Failed` event."""
    return by_code(event.code, event.message, event.hint)


def write_traceback(error: BaseException, log: Path) -> None:
    """Append the traceback of `error` to `log`, or write it to stderr if `log` cannot be written.

    In a child process stderr is redirected to the log. A new log is readable by its owner only, since the messages of
    exceptions may contain prompts.
    """
    text = "".join(traceback.format_exception(error))
    try:
        append_private(log, text)
    except OSError:
        sys.stderr.write(text)


def is_disk_full(error: BaseException) -> bool:
    """Return whether `error` means that a volume is full. Rust and C++ libraries report it in the message only."""
    if isinstance(error, OSError) and error.errno in _DISK_FULL_ERRNOS:
        return True
    return "no space left on device" in str(error).lower()


def _explain(error: BaseException, log: Path) -> tuple[str, str, str]:
    if isinstance(error, BitwrightError):
        return error.code, error.message, error.hint
    if isinstance(error, KeyboardInterrupt):
        return "cancelled", "The run was stopped.", ""
    if is_disk_full(error):
        return "disk-full", "The disk is full.", "Free some space, or choose an output folder on another volume."
    if no_memory(error):
        return (
            "out-of-memory",
            f"Out of memory: {_first_line(error)}",
            "Try a lower --memory, --low-memory, a smaller --seqlen, or close other programs.",
        )
    if isinstance(error, OSError) and error.errno is not None:
        place = error.filename2 or error.filename
        what = f"{os.fsdecode(place)}" if isinstance(place, str | bytes | os.PathLike) else "A file"
        hint = f"Check the free space and the permissions; the traceback is in {log}"
        return "file", f"{what} could not be read or written: {reason(error)}.", hint
    return (
        "internal",
        f"Something went wrong inside Bitwright: {type(error).__name__}: {_first_line(error)}",
        f"This is a bug; the traceback is in {log}",
    )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
