"""The log of failures that are the endpoint's own: each has an id, which the reply to the caller names.

The caller learns the id and nothing else. Knows files and exceptions; nothing of requests.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from core.events import Emit, Log

Record = Callable[[BaseException], str]
_LARGEST: Final = 4 << 20
"""Bytes of the log from which it is begun anew."""


def recorder(log: Path, emit: Emit) -> Record:
    """Return what writes a failure with its traceback to `log`, tells it as a `Log`, and returns its id."""

    def record(error: BaseException) -> str:
        number = secrets.token_hex(4)
        when = datetime.now(UTC).isoformat(timespec="seconds")
        text = f"{when} error {number}\n{''.join(traceback.format_exception(error))}\n"
        first = str(error).partition("\n")[0][:200]
        try:
            _append(log, text)
            place = f"the traceback is in {log}"
        except OSError as problem:
            place = f"{log} cannot be written: {problem.strerror}"
        emit(Log("error", f"error {number}: {type(error).__name__}: {first}; {place}"))
        return number

    return record


def _append(log: Path, text: str) -> None:
    """Append to a file that only its owner may read: messages of exceptions may hold what was asked."""
    log.parent.mkdir(parents=True, exist_ok=True)
    fresh = 0
    with contextlib.suppress(FileNotFoundError):
        fresh = os.O_TRUNC if log.stat().st_size > _LARGEST else 0
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | fresh, 0o600)
    with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as stream:
        stream.write(text)
