"""Where Bitwright keeps what is its own. Imports next to nothing: the window asks before its first paint."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

_OTHERS = 0o077
"""Rights of everybody but the owner."""


def home() -> Path:
    """Bitwright's own data folder; the environment variable BITWRIGHT_HOME moves it.

    Where the user has no home folder, or one in which nothing can be made, it is a private folder among the temporary
    ones.
    """
    moved = os.environ.get("BITWRIGHT_HOME", "").strip()
    if moved:
        return Path(os.path.expanduser(moved)).absolute()
    import platformdirs

    return _or_temporary(platformdirs.user_data_path("bitwright", appauthor=False))


def private_folder(name: str) -> Path:
    """A folder for what is executed later, such as compiled code, which nobody else may read or write; made if need be.

    It lies in `home()`, or in the user's cache where that one is on a disk on which nobody can be kept out, or where
    another user was first.

    Raises:
        OSError: there is no place for one; with the reason of the last.
    """
    reason = OSError("no place for it is known")
    for place in _places(name):
        try:
            os.close(open_private(place))
        except (OSError, RuntimeError) as error:
            reason = error if isinstance(error, OSError) else OSError(str(error))
            continue
        return place
    raise reason


def open_private(folder: Path) -> int:
    """A descriptor of a folder that only its owner, this user, may read and write; it is made if it is not there.

    A folder of this user that others had rights in loses those; a link is not followed. On Windows, where profiles are
    private and folders have no descriptors, any file's: the null device's.

    Raises:
        OSError: it belongs to somebody else, is no folder, or others cannot be kept out.
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
    """The folder for what can be made again; `home` where BITWRIGHT_HOME moves that."""
    if os.environ.get("BITWRIGHT_HOME", "").strip():
        return home()
    import platformdirs

    return _or_temporary(platformdirs.user_cache_path("bitwright", appauthor=False))


def settings_home() -> Path:
    """The folder for the window's settings; `home` where BITWRIGHT_HOME moves that."""
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
    """A folder of this user's alone; None if it cannot be had, or somebody else has made it."""
    folder = Path(tempfile.gettempdir()) / f"bitwright-{os.getuid() if hasattr(os, 'getuid') else os.getlogin()}"
    try:
        os.close(open_private(folder))
    except OSError:
        return None
    return folder
