"""Writing files so that a reader sees the old one or the new one, never half of either.

Knows the file system and nothing of models or jobs.
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
"""Of a file of JSON; configs have up to 1 MB, indexes of the largest models 20 MB."""

_CORRECT: Final = "Correct it there; if the file was downloaded, fetch it again."
_UTF8: Final = "Save it as UTF-8; if the file was downloaded, fetch it again."
_LASTING: Final = {
    errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST, errno.EXDEV, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.EROFS,
    errno.ENAMETOOLONG,
}  # fmt: skip
"""Reasons that a moment later are the same."""
_WAITS: Final = (0.05, 0.15, 0.4, 1.0)
"""Seconds before each further try: a scanner, an indexer or a network volume lets go within them, or not at all."""


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path`: temporary name beside it, fsync, rename, fsync of the folder."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        patiently(lambda: temporary.replace(path))
    finally:
        with contextlib.suppress(OSError):  # it would hide the error that matters
            temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """`write_atomic` of readable JSON."""
    write_atomic(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Return a value as readable JSON in UTF-8."""
    try:
        data = json.dumps(value, indent=2, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        # a file name that is not UTF-8 arrives as lone surrogates, which only the escaped form can hold
        data = json.dumps(value, indent=2).encode("ascii")
    return data + b"\n"


def read_json(path: Path, limit: int = MAX_JSON_BYTES, *, unique: bool = False) -> Any:
    """Return the JSON value in `path`, which may begin with a byte-order mark.

    Args:
        path: of the file.
        limit: bytes above which it is not read; Python objects take up to twenty times the room of their text.
        unique: refuse an object that has a key twice, of which the last would count; for files that people write.

    Raises:
        CorruptFile: it is not readable JSON in UTF-8 (with line and column), larger than `limit`, or nested too deep.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        raise CorruptFile(f"{path} cannot be read: {error.strerror}.", "Check the path and its rights.") from error
    if len(data) > limit:
        raise CorruptFile(f"{path} has more than {limit >> 20} MiB, too much for such a file.", "Check the file.")
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
    """Raise CorruptFile where a text stands in for the file itself: a Git LFS pointer, or a web page.

    A clone without git-lfs leaves pointers of some 130 bytes (huggingface/transformers#27923); a browser's "save as" of
    a file's page on the Hub leaves that page.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(64).lstrip().lower()
    except OSError:
        return
    if start.startswith(b"version https://git-lfs"):
        raise CorruptFile(
            f"{path} is a Git LFS pointer: the file itself was not downloaded.",
            "Run `git lfs install` and `git lfs pull` in its folder, or fetch the model with `hf download`.",
        )
    if start.startswith((b"<!doctype html", b"<html")):
        raise CorruptFile(f"{path} is a web page, not the file itself.", "Download the file, not its page.")


def reason(error: Exception) -> str:
    """What the system says about `error`, without the number and the path."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def patiently(call: Callable[[], object]) -> None:
    """Make a call that renames or removes, and again after a moment where it fails for a reason that may pass.

    Raises:
        OSError: it failed each time.
    """
    for wait in (*_WAITS, None):
        try:
            call()
            return
        except OSError as error:
            if wait is None or error.errno in _LASTING:
                raise
            time.sleep(wait)


def sync_tree(folder: Path) -> None:
    """Make every file and folder below `folder`, and `folder` itself, survive a power cut.

    Raises:
        OSError: the system could not write something that it had promised to write.
    """
    for path, _folders, names in os.walk(folder, topdown=False):
        for name in names:
            # Windows flushes only what is open for writing
            descriptor = os.open(os.path.join(path, name), os.O_RDONLY if os.name == "posix" else os.O_RDWR)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_folder(Path(path))


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut (POSIX only; elsewhere the rename itself does)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def expanded(path: str | os.PathLike[str]) -> Path:
    """`path` with a leading `~` replaced by the user's home; left as it is where there is no such user or home."""
    return Path(os.path.expanduser(path))


def entries(folder: Path) -> list[Path]:
    """What lies in `folder`, by name; nothing where it is not there or cannot be read."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


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
