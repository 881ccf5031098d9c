"""The log of internal errors of the endpoint, each with an id that is sent to the client.

The client receives only the id. The log is readable by its owner only, because messages of exceptions may contain parts
of requests.
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
"""Size from which the log is overwritten."""


def recorder(log: Path, emit: Emit) -> Record:
    """Return a function that writes an exception with its traceback to `log`, emits a `Log`, and returns its id."""

    def record(error: BaseException) -> str:
        number = secrets.token_hex(4)
        when = datetime.now(UTC).isoformat(timespec="seconds")
        text = f"{when} error {number}\n{''.join(traceback.format_exception(error))}\n"
        first = str(error).partition("\n")[0][:200]
        try:
            append_private(log, text, _LARGEST)
            note = f"the traceback is in {log}"
        except OSError as problem:
            note = f"{log} cannot be written: {problem.strerror}"
        emit(Log("error", f"error {number}: {type(error).__name__}: {first}; {note}"))
        return number

    return record
