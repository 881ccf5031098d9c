"""The log of failures that are the endpoint's own: each has an id, which the reply to the caller names.

The caller learns the id and nothing else; only the owner may read the log, since messages of exceptions may hold what
was asked. Knows files and exceptions; nothing of requests.
"""

from __future__ import annotations

import secrets
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from core.events import Emit, Log
from core.private_files import append_private

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
            append_private(log, text, _LARGEST)
            place = f"the traceback is in {log}"
        except OSError as problem:
            place = f"{log} cannot be written: {problem.strerror}"
        emit(Log("error", f"error {number}: {type(error).__name__}: {first}; {place}"))
        return number

    return record
