"""Folders of Bitwright for data, cache and settings. Imports little, because the window needs it at its start."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

_OTHERS = 0o077
"""Permission bits of all users but the owner."""


def home() -> Path:
    """Return Bitwright's data folder, or the value of the environment variable BITWRIGHT_HOME.

    If the user has no writable home folder, it is a private folder in the temporary directory.
    """
    moved = os.environ.get("BITWRIGHT_HOME", "").strip()
    if moved:
        return Path(os.path.expanduser(moved)).absolute()
    import platformdirs

    return _or_temporary(platformdirs.user_data_path("bitwright", appauthor=False))


def private_folder(name: str) -> Path:
    """Return a folder for code that is executed later, which only this user may read or write; create it if needed.

    It is in `home()`, or in the user's cache if `home()` is on a file system without permissions or belongs to another
    user.

    Raises:
        OSError: no such folder can be created; with the reason of the last attempt.
    """
    reason = OSError("there is no suitable folder")
    for place in _places(name):
        try:
            os.close(open_private(place))
        except (OSError, RuntimeError) as error:
            found = error if isinstance(error, OSError) else OSError(str(error))
            reason = found.with_traceback(None)  # a traceback would keep the callers' objects alive
            continue
        return place
    raise reason


def open_private(folder: Path) -> int:
    """Return a descriptor of a folder that only this user may read and write; the folder is created if needed.

    Permissions of other users are removed from an existing folder; links are not followed. On Windows, where profiles
    are private and folders have no descriptors, it is a descriptor of the null device.

    Raises:
        OSError: the folder belongs to another user, is not a folder, or the permissions cannot be changed.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if os.name == "nt":
        return os.open(os.devnull, os.O_RDONLY)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            raise PermissionError(f"{folder} belongs to another user")
        if os.fstat(descriptor).st_mode & _OTHERS:
            os.fchmod(descriptor, 0o700)
        if os.fstat(descriptor).st_mode & _OTHERS:
            raise PermissionError(f"other users may write to {folder}")
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _places(name: str) -> Iterator[Path]:
    yield home() / name
    import platformdirs

    yield _or_temporary(platformdirs.user_cache_path("bitwright", appauthor=False)) / name


def cache_home() -> Path:
    """Return the cache folder; `home()` if BITWRIGHT_HOME is set."""
    if os.environ.get("BITWRIGHT_HOME", "").strip():
        return home()
    import platformdirs

    return _or_temporary(platformdirs.user_cache_path("bitwright", appauthor=False))


def settings_home() -> Path:
    """Return the folder for the settings of the window; `home()` if BITWRIGHT_HOME is set."""
    if os.environ.get("BITWRIGHT_HOME", "").strip():
        return home()
    import platformdirs

    return _or_temporary(platformdirs.user_config_path("bitwright", appauthor=False))


def _or_temporary(usual: Path) -> Path:
    if os.path.isabs(usual) and (os.path.exists(usual) or _can_be_made(usual)):
        return usual
    return _temporary() or usual.absolute()


def _can_be_made(folder: Path) -> bool:
    for parent in folder.parents:
        if os.path.lexists(parent):
            return os.path.isdir(parent) and os.access(parent, os.W_OK | os.X_OK)
    return False


def _temporary() -> Path | None:
    """Return a private folder in the temporary directory; None if it cannot be created or belongs to another user."""
    folder = Path(tempfile.gettempdir()) / f"bitwright-{os.getuid() if hasattr(os, 'getuid') else os.getlogin()}"
    try:
        os.close(open_private(folder))
    except OSError:
        return None
    return folder
