"""Writing files so that a reader sees the old one or the new one, never half of either.

Knows the file system and nothing of models or jobs.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from core.errors import CorruptFile


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path`: temporary name beside it, fsync, rename, fsync of the folder."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """`write_atomic` of readable JSON."""
    try:
        data = json.dumps(value, indent=2, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        # a file name that is not UTF-8 arrives as lone surrogates, which only the escaped form can hold
        data = json.dumps(value, indent=2).encode("ascii")
    write_atomic(path, data + b"\n")


def read_json(path: Path) -> Any:
    """The JSON value in `path`.

    Raises:
        CorruptFile: it is not readable JSON in UTF-8, or nested too deep to read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CorruptFile(f"{path} is not valid JSON.", "Fetch the file again.") from error
    except OSError as error:
        raise CorruptFile(f"{path} cannot be read: {error.strerror}.", "Check the path and its rights.") from error


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut (POSIX only; elsewhere the rename itself does)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def existing_parent(path: Path) -> Path:
    """The nearest ancestor of `path` (or itself) that exists."""
    path = path.absolute()
    # the root of a drive that is not there is its own parent
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def free_name(folder: Path) -> Path:
    """`folder`, or the first of `folder-2`, `folder-3` and so on that does not exist."""
    number, found = 1, folder
    while os.path.lexists(found):
        number += 1
        found = folder.with_name(f"{folder.name}-{number}")
    return found


def free_bytes(path: Path) -> int:
    """Bytes free for this user on the volume that holds, or would hold, `path`."""
    return shutil.disk_usage(existing_parent(path)).free
