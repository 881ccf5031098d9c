"""Claims: exclusive rights to write an output, held by one process during its work.

A claim is a locked file beside the output that names its holder. The file system decides whether two paths are the
same, so links, other spellings and other letter case are handled.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from core.errors import OutputProblem
from core.files import reason
from core.lock import FileLock, Holder, here, holder_from_json, is_held, take

MARK: Final = ".bitwright-"
_CLAIM: Final = "claim"
_CLAIM_BYTES: Final = 1 << 20
_MOUNTS: Final = Path("/proc/self/mountinfo")
_OWN: Final = ("lost+found",)
"""Entries of an empty volume."""


@dataclass
class _Held:
    """A claim of this process: the token of its work, how often it was entered, and the lock."""

    token: str
    entered: int
    lock: FileLock


_claims: dict[Path, _Held] = {}
"""Claims of this process, by claim file."""
_guard = threading.Lock()


def is_mount_point(folder: Path) -> bool:
    """Return whether a volume is mounted on `folder`, which then can be filled but neither replaced nor renamed onto.

    `os.path.ismount` does not see a folder of the same volume that is mounted (`mount --bind`); Linux lists those.
    """
    if os.path.ismount(folder):
        return True
    try:
        lines = _MOUNTS.read_bytes().splitlines()
    except OSError:
        return False
    place = os.fsencode(os.path.realpath(folder))
    return any(len(parts := line.split()) > 4 and _unescaped(parts[4]) == place for line in lines)


def _unescaped(text: bytes) -> bytes:
    """Return a path from mountinfo, where white space and backslashes are octal escapes."""
    for code in (b"\\040", b"\\011", b"\\012", b"\\134"):
        text = text.replace(code, bytes([int(code[1:], 8)]))
    return text


def is_filled_in_place(target: Path) -> bool:
    """Return whether the output grows inside the existing folder `target` because nothing can be renamed onto it."""
    if not target.is_dir():
        return False
    if is_mount_point(target) or not os.access(target.parent, os.W_OK | os.X_OK):
        return True
    return is_free(target) and any(target.iterdir())


def staging_places(target: Path, token: str) -> tuple[Path, Path]:
    """Return where the output of the work called `token` can grow: hidden beside `target`, or hidden inside it."""
    return target.with_name(f".{target.name}{MARK}{token}"), target / f"{MARK}{token}"


def is_free(target: Path) -> bool:
    """Return whether the folder `target` is empty except for entries of a new volume and files of Bitwright."""
    return all(entry.name in _OWN or entry.name.startswith(MARK) for entry in target.iterdir())


def refuse_if_claimed(target: Path) -> None:
    """Raise OutputProblem where another process is writing to `target`, or to a folder that will contain it."""
    for folder in (target, *target.parents):
        for file in _claim_files(folder) if folder.name else ():
            # the claim on the target itself can be our own; `Claim` compares the tokens
            if is_held(file) and not (folder == target and file in _claims):
                raise _taken(folder, file)


class Claim:
    """The right to write `target`, as a context manager that creates missing parent folders and removes empty ones.

    A second claim with the same `token` in the same process has no effect.

    Args:
        target: absolute path that does not exist, or a free folder.
        token: identifier of the work, such as the id of a job.
        title: description of the work, for the error of another process.

    Raises:
        OutputProblem: another process has the claim, or it cannot be created.
    """

    def __init__(self, target: Path, token: str, title: str) -> None:
        self._target = target
        self._token = token
        self._title = title
        self._made: list[Path] = []
        self._file: Path | None = None

    def __enter__(self) -> Claim:
        try:
            self._enter()
        except OSError as error:
            self._remove_parents()
            raise OutputProblem(
                f"{self._target} cannot be created: {reason(error)}.", "Choose an --output with write permission."
            ) from error
        except BaseException:
            self._remove_parents()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is None:
            return
        with _guard:
            held = _claims.get(self._file)
            if held is not None:
                held.entered -= 1
                if not held.entered:
                    del _claims[self._file]
                    held.lock.close(remove=True)
        self._file = None
        self._remove_parents()

    def _enter(self) -> None:
        beside, inside = _claim_files(self._target)
        file = inside if is_filled_in_place(self._target) else beside
        with _guard:
            if (held := _claims.get(file)) is not None and held.token == self._token:
                held.entered += 1
                self._file = file
                return
            refuse_if_claimed(self._target)
            for parent in reversed([path for path in self._target.parents if not path.exists()]):
                with contextlib.suppress(FileExistsError):  # created by another run at the same time
                    parent.mkdir()
                    self._made.append(parent)
            lock = take(file)
            if lock is None:
                raise _taken(self._target, file)
            try:
                self._take_over(lock, file)
            except BaseException:
                lock.close()
                raise
            _claims[file] = _Held(self._token, 1, lock)
            self._file = file

    def _take_over(self, lock: FileLock, file: Path) -> None:
        """Write this process as holder, unless the previous holder may still be running where locks do not work."""
        before = _holder(file)
        if before is not None and (before.elsewhere or (not lock.real and before.process() is not None)):
            raise _taken(self._target, file)
        made = [str(parent) for parent in self._made]
        lock.write(json.dumps({**here().to_json(), "work": self._title, "made": made}).encode("utf-8"))

    def _remove_parents(self) -> None:
        _remove_empty(self._made)
        self._made = []


def was_claimed(target: Path) -> bool:
    """Return whether there is a claim on `target`, held or left by a process that was killed."""
    return any(file.is_file() for file in _claim_files(target))


def remove_stale(target: Path, token: str) -> None:
    """Remove the claims on `target` whose process is gone, and that of the work `token` of this process.

    The folders that a process made for its claim are removed with it where they are empty.
    """
    for file in _claim_files(target):
        held = _claims.get(file)
        if held is not None and held.token == token:
            del _claims[file]
            held.lock.close(remove=True)
            continue
        with contextlib.suppress(OSError):
            if not file.is_file() or (lock := take(file)) is None:
                continue
            before = _holder(file)
            stale = before is None or not (before.elsewhere or (not lock.real and before.process() is not None))
            made = _made_for(file, target) if stale else []
            lock.close(remove=stale)
            _remove_empty(made)


def _claim_files(target: Path) -> tuple[Path, Path]:
    beside, inside = staging_places(target, _CLAIM)
    return beside, inside


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove nested folders, the outermost first in the list, up to the first that is not empty."""
    for folder in reversed(folders):
        try:
            folder.rmdir()
        except OSError:
            break  # contains the output or other files


def _made_for(file: Path, target: Path) -> list[Path]:
    """Return the folders above `target` that were made for a claim, the outermost first."""
    try:
        names = set(json.loads(file.read_bytes()[:_CLAIM_BYTES])["made"])
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return []
    return [parent for parent in reversed(target.parents) if str(parent) in names]


def _holder(file: Path) -> Holder | None:
    try:
        return holder_from_json(json.loads(file.read_bytes()[:_CLAIM_BYTES]))
    except (OSError, ValueError, RecursionError):
        return None


def _taken(target: Path, file: Path) -> OutputProblem:
    holder = _holder(file)
    who = "" if holder is None else f" (process {holder.pid} on {holder.host})"
    hint = "Choose another output folder, or wait for the end of that run."
    if holder is not None and holder.elsewhere:
        hint = f"Choose another output folder. If that run no longer exists, remove {file}."
    return OutputProblem(f"Another run is writing to {target}{who}.", hint)
