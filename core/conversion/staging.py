"""The folder in which a conversion grows: hidden beside its target, renamed when all is proven, gone in any other case.

A process that is killed cannot remove anything; it leaves a note in Bitwright's own folder, by which the next
conversion finds and removes what it left. Knows folders, not what goes into them.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from pathlib import Path
from types import TracebackType

from core.errors import BitwrightError, OutputProblem
from core.files import read_json, sync_folder, write_json
from core.home import home
from core.jobs import store

_NOTES = "conversions"
_NOTE = "staging.json"
_MARK = ".bitwright-"
_UNFINISHED = "."


class Staging:
    """A folder that becomes `target`; a context manager that removes it unless `publish` was called.

    Attributes:
        folder: empty when entered.

    Args:
        target: does not exist, or is an empty folder.
    """

    def __init__(self, target: Path) -> None:
        token = secrets.token_hex(8)
        self._target = target
        self._note = home() / _NOTES / token
        self._made: list[Path] = []
        self._published = False
        self.folder = target.with_name(f".{target.name}{_MARK}{token}")

    def __enter__(self) -> Staging:
        sweep()
        try:
            # a sweep at this moment takes a note without an owner for one of the dead
            unfinished = self._note.with_name(f"{_UNFINISHED}{self._note.name}")
            unfinished.mkdir(parents=True)
            store.claim(unfinished)
            write_json(unfinished / _NOTE, str(self.folder))
            unfinished.rename(self._note)
            for parent in reversed([path for path in self._target.parents if not path.exists()]):
                parent.mkdir()
                self._made.append(parent)
            self.folder.mkdir()
        except OSError as error:
            self._discard()
            raise OutputProblem(
                f"{self._target} cannot be made: {error.strerror}.", "Choose a folder that you may write."
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._published:
            shutil.rmtree(self._note, ignore_errors=True)
        else:
            self._discard()

    def publish(self) -> None:
        """Give the folder its name.

        Raises:
            OutputProblem: something is in its place by now.
        """
        try:
            if os.name == "nt" and self._target.is_dir():
                self._target.rmdir()
            self.folder.rename(self._target)
        except OSError as error:
            raise OutputProblem(
                f"{self._target} cannot be put into place: {error.strerror}.", "Something was put there meanwhile."
            ) from error
        self._published = True
        sync_folder(self._target.parent)

    def _discard(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.rmtree(self._note, ignore_errors=True)
        with contextlib.suppress(OSError):  # somebody put something there
            for parent in reversed(self._made):
                parent.rmdir()


def sweep() -> list[Path]:
    """Remove what conversions that were killed have left, and say what that was."""
    removed = []
    for note in sorted((home() / _NOTES).glob("*")):
        if note.name.startswith(_UNFINISHED) or store.runner(note) is not None:
            continue
        with contextlib.suppress(BitwrightError, OSError, TypeError):
            left = Path(read_json(note / _NOTE))
            if not left.parent.exists():
                continue  # perhaps a drive that is not plugged in
            if left.is_dir() and left.name.endswith(f"{_MARK}{note.name}"):
                shutil.rmtree(left)
                removed.append(left)
        shutil.rmtree(note, ignore_errors=True)
    return removed
