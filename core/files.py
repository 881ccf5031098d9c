"""File system functions: atomic writes, JSON, syncing, and free names.

A file written here is complete or unchanged for every reader, even after a crash.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from core.errors import CorruptFile

MAX_JSON_BYTES: Final = 32 << 20
"""Maximum size of a JSON file; configs have up to 1 MB, indexes of the largest models 20 MB."""

_CORRECT: Final = "Correct it there; if the file was downloaded, fetch it again."
_UTF8: Final = "Save it as UTF-8; if the file was downloaded, fetch it again."
_PERMANENT_ERRORS: Final = {
    errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST, errno.EXDEV, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.EROFS,
    errno.ENAMETOOLONG,
}  # fmt: skip
"""Errors that do not go away by waiting."""
_RETRY_DELAYS: Final = (0.05, 0.15, 0.4, 1.0)
"""Seconds before each retry; virus scanners, indexers and network volumes release files within this time."""


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically: write a temporary file beside it, fsync, rename, fsync the folder."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        with_retries(lambda: temporary.replace(path))
    finally:
        with contextlib.suppress(OSError):  # would hide the first error
            temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically."""
    write_atomic(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Return a value as indented JSON in UTF-8."""
    try:
        data = json.dumps(value, indent=2, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        # file names that are not UTF-8 contain lone surrogates, which must be escaped
        data = json.dumps(value, indent=2).encode("ascii")
    return data + b"\n"


def read_json(path: Path, limit: int = MAX_JSON_BYTES, *, unique: bool = False) -> Any:
    """Return the JSON value in `path`, which may begin with a byte-order mark.

    Args:
        path: path of the file.
        limit: maximum size in bytes; Python objects take up to twenty times the memory of their text.
        unique: reject objects with duplicate keys; for files written by hand.

    Raises:
        CorruptFile: the file is not valid JSON in UTF-8 (with line and column), too large, or nested too deep.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        raise CorruptFile(f"{path} cannot be read: {error.strerror}.", "Check its permissions.") from error
    if len(data) > limit:
        raise CorruptFile(
            f"{path} is larger than {limit >> 20} MiB, the limit for this kind of file.", "Check the file."
        )
    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=partial(_unique, path) if unique else None)
    except json.JSONDecodeError as error:
        check_content(path)
        place = f"line {error.lineno}, column {error.colno}"
        raise CorruptFile(f"{path} is not valid JSON: {error.msg} at {place}.", _CORRECT) from error
    except UnicodeDecodeError as error:
        kind = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else f"not UTF-8, at byte {error.start}"
        raise CorruptFile(f"{path} is text in {kind}." if kind == "UTF-16" else f"{path} is {kind}.", _UTF8) from error
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, brackets 5,000 deep
        raise CorruptFile(f"{path} is not valid JSON.", _CORRECT) from error


def _unique(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        twice = next(key for number, (key, _) in enumerate(pairs) if key in dict(pairs[:number]))
        raise CorruptFile(f"{path} has {twice[:200]!r} twice in one object.", "Remove one of them.")
    return value


def check_content(path: Path) -> None:
    """Raise CorruptFile if the file is a Git LFS pointer or a web page in place of the real file.

    A clone without git-lfs contains pointers of about 130 bytes (huggingface/transformers#27923); saving the page of a
    file on the Hub from a browser saves HTML.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(64).lstrip().lower()
    except OSError:
        return
    if start.startswith(b"version https://git-lfs"):
        raise CorruptFile(
            f"{path} is a Git LFS pointer: the file was not downloaded.",
            "Run `git lfs install` and `git lfs pull` in its folder, or download the model with `hf download`.",
        )
    if start.startswith((b"<!doctype html", b"<html")):
        raise CorruptFile(f"{path} is a web page, not the file.", "Download the file, not its page.")


def reason(error: Exception) -> str:
    """Return the message of an exception, for an OSError without number and path."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def with_retries(call: Callable[[], object]) -> None:
    """Call a function that renames or removes files, and retry errors that may be temporary.

    Raises:
        OSError: the last attempt failed.
    """
    for wait in (*_RETRY_DELAYS, None):
        try:
            call()
            return
        except OSError as error:
            if wait is None or error.errno in _PERMANENT_ERRORS:
                raise
            time.sleep(wait)


def sync_tree(folder: Path) -> None:
    """Sync all files and folders below `folder`, and `folder` itself, to disk.

    Raises:
        OSError: data could not be written.
    """
    for path, _folders, names in os.walk(folder, topdown=False):
        for name in names:
            # Windows flushes only files that are open for writing
            descriptor = os.open(os.path.join(path, name), os.O_RDONLY if os.name == "posix" else os.O_RDWR)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_folder(Path(path))


def sync_folder(folder: Path) -> None:
    """Sync the entries of `folder` to disk, so that renames are durable (POSIX only; elsewhere not needed)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return `path` with a leading `~` replaced by the user's home; unchanged if there is no such user or home."""
    return Path(os.path.expanduser(path))


def entries(folder: Path) -> list[Path]:
    """Return the sorted entries of `folder`; an empty list if it does not exist or cannot be read."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def existing_parent(path: Path) -> Path:
    """Return `path` or its nearest ancestor that exists."""
    path = path.absolute()
    # the root of a missing drive is its own parent
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def free_name(folder: Path) -> Path:
    """Return `folder`, or the first of `folder-2`, `folder-3`, ... that does not exist."""
    number, found = 1, folder
    while os.path.lexists(found):
        number += 1
        found = folder.with_name(f"{folder.name}-{number}")
    return found


def free_bytes(path: Path) -> int:
    """Return the free bytes for this user on the volume of `path`."""
    return shutil.disk_usage(existing_parent(path)).free
