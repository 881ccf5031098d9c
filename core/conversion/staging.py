"""The staging folder of a conversion: hidden next to its target, renamed after verification, removed on failure.

A record in Bitwright's home folder lets the next conversion find and remove the staging folder of a killed process.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

from core import staging
from core.claim import MARK, remove_stale, staging_places
from core.errors import BitwrightError
from core.files import entries, read_json, write_json
from core.home import home
from core.lock import FileLock, is_held, take

_NOTES = "conversions"
_NOTE = "staging.json"
_LOCK = "lock"
_UNFINISHED = "."


class ConversionStaging(staging.Staging):
    """A staging folder that becomes `target`; a context manager that removes it unless `publish` was called.

    Attributes:
        folder: the staging folder, empty when entered.

    Args:
        target: does not exist, or is an empty folder.
    """

    def __init__(self, target: Path) -> None:
        token = secrets.token_hex(8)
        super().__init__(target, token, "a conversion")
        self._note = home() / _NOTES / token
        self._lock: FileLock | None = None

    def __enter__(self) -> Self:
        sweep()
        # without a writable home folder, the conversion runs unrecorded
        with contextlib.suppress(OSError):
            # a record without a lock would be taken for that of a killed process, so it is created hidden
            unfinished = self._note.with_name(f"{_UNFINISHED}{self._note.name}")
            unfinished.mkdir(parents=True)
            self._lock = take(unfinished / _LOCK)
            write_json(unfinished / _NOTE, str(self.target))
            unfinished.rename(self._note)
        try:
            return super().__enter__()
        except BaseException:
            self._forget()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._forget()

    def _forget(self) -> None:
        """Remove the record."""
        if self._lock is not None:
            self._lock.close()
        for note in (self._note, self._note.with_name(f"{_UNFINISHED}{self._note.name}")):
            shutil.rmtree(note, ignore_errors=True)


def sweep() -> list[Path]:
    """Remove the staging folders of killed conversions, and return their paths."""
    removed: list[Path] = []
    for note in entries(home() / _NOTES):
        if note.name.startswith(_UNFINISHED) or is_held(note / _LOCK) is not False:
            continue
        with contextlib.suppress(BitwrightError, OSError, TypeError, ValueError):
            target = Path(read_json(note / _NOTE))
            if not target.parent.exists():
                continue  # the drive may be disconnected
            if target.name.startswith(".") and MARK in target.name:
                continue
            removed += [left for left in staging_places(target, note.name) if left.is_dir() and staging.remove(left)]
            remove_stale(target, note.name)
        shutil.rmtree(note, ignore_errors=True)
    return removed
