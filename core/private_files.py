"""Files that only their owner may read: conversations, input history, and logs.

On Windows a file has the permissions of its folder.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from core.files import sync_folder


def private_folder(folder: Path) -> None:
    """Create a folder with mode 0700; an existing folder of this user gets that mode.

    Raises:
        OSError: the folder cannot be created.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.name == "posix" and folder.stat().st_uid == os.geteuid():
        folder.chmod(0o700)


def write_private(path: Path, data: bytes, *, replace: bool = True) -> None:
    """Write `data` to `path` atomically, with mode 0600.

    Args:
        replace: whether an existing file may be replaced.

    Raises:
        FileExistsError: the file exists and may not be replaced.
        OSError: the file cannot be written.
    """
    if not replace and os.path.lexists(path):
        raise FileExistsError(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        if replace:
            temporary.replace(path)
        else:
            _rename_to_new(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def append_private(path: Path, text: str, largest: int | None = None) -> None:
    """Append `text` to a file with mode 0600, which is truncated first if it has more than `largest` bytes.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = 0
    with contextlib.suppress(FileNotFoundError):
        fresh = os.O_TRUNC if largest is not None and path.stat().st_size > largest else 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | fresh, 0o600)
    with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as stream:
        stream.write(text)


def _rename_to_new(temporary: Path, path: Path) -> None:
    """Rename without replacing an existing file; without hard links on the volume, a small race remains."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:
        if os.path.lexists(path):
            raise FileExistsError(path) from None
        temporary.rename(path)
