"""File locks that the operating system releases when their process ends, and the identity of the process.

Clocks and process ids do not show reliably whether a run is alive: clocks are changed, and ids are reused and differ
between containers. A lock on an open file does.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil

_UNSUPPORTED = {
    errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, getattr(errno, "ENOTSUP", errno.EOPNOTSUPP),
}  # fmt: skip
"""Error numbers of file systems without locks."""
_BUSY = {errno.EAGAIN, errno.EACCES, errno.EDEADLK}
_TRIES, _PAUSE = 10, 0.05
"""`is_held` takes a shared lock for a moment, during which `take` has to wait."""
_FAR = 1 << 62
"""Offset of the byte that is locked on Windows, where a locked byte cannot be read."""


class FileLock:
    """An exclusive lock on a file; released by `close`, or by the end of this process.

    Attributes:
        path: path of the file.
        real: false if the file system has no locks, so that other processes are not excluded.
    """

    def __init__(self, path: Path, descriptor: int, real: bool) -> None:
        self.path = path
        self.real = real
        self._descriptor = descriptor

    def write(self, data: bytes) -> None:
        """Replace the content of the file.

        Raises:
            OSError: the disk is full, or the file cannot be written.
        """
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        os.write(self._descriptor, data)

    def close(self, *, remove: bool = False) -> None:
        """Release the lock.

        Args:
            remove: remove the file too, before the lock is released if the system allows it.
        """
        if self._descriptor < 0:
            return
        if remove and os.name == "posix":
            with contextlib.suppress(OSError):
                self.path.unlink()
        os.close(self._descriptor)
        self._descriptor = -1
        if remove and os.name != "posix":
            with contextlib.suppress(OSError):  # opened by another process
                self.path.unlink()


def take(path: Path) -> FileLock | None:
    """Return an exclusive lock on the file `path`, which is created if missing; None if another process has it.

    Raises:
        OSError: the file cannot be opened for writing.
    """
    for _ in range(_TRIES):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
        found = _lock(descriptor, shared=False)
        # the previous holder may have removed the file between open and lock; then another file must be opened
        if found is not False and _is_file(descriptor, path):
            return FileLock(path, descriptor, found is True)
        os.close(descriptor)
        time.sleep(_PAUSE)
    return None


def is_held(path: Path) -> bool | None:
    """Return whether a process holds the lock on `path`; None if this cannot be found out. Writes nothing."""
    try:
        descriptor = os.open(path, (os.O_RDONLY if os.name == "posix" else os.O_RDWR) | getattr(os, "O_BINARY", 0))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return None
    try:
        found = _lock(descriptor, shared=True)
        return None if found is None else not found
    finally:
        os.close(descriptor)


def _lock(descriptor: int, *, shared: bool) -> bool | None:
    """Lock without waiting; return True if acquired, False if held by another, None if locks are not supported."""
    try:
        if os.name == "posix":
            import fcntl

            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        else:  # pragma: no cover - Windows
            import msvcrt

            os.lseek(descriptor, _FAR, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    except OSError as error:
        if error.errno in _BUSY:
            return False
        return None if error.errno in _UNSUPPORTED else False
    return True


def _is_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except OSError:
        return False


@dataclass(frozen=True)
class Holder:
    """Unique identity of a process.

    Attributes:
        host: name of the machine or container.
        boot: identifier of the boot of the machine; "" if unknown.
        pid: process id.
        started: start time of the process, independent of clock changes: on Linux in clock ticks since boot.
    """

    host: str
    boot: str
    pid: int
    started: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def elsewhere(self) -> bool:
        """True if the process ran on another machine, whose processes are not visible here."""
        me = here()
        if self.boot and self.boot == me.boot:
            return False  # a container with another host name
        return self.host != me.host

    def process(self) -> psutil.Process | None:
        """Return the process if it is still running on this machine, else None."""
        try:
            if self.elsewhere or (self.boot and self.boot != here().boot) or _started(self.pid) != self.started:
                return None
            process = psutil.Process(self.pid)
            return None if process.status() == psutil.STATUS_ZOMBIE else process
        except (psutil.Error, OSError, ValueError, OverflowError):
            return None


def holder_from_json(value: Any) -> Holder:
    """Return the holder encoded by `Holder.to_json`.

    Raises:
        ValueError: the value is invalid.
    """
    try:
        host, boot, pid, started = value["host"], value["boot"], value["pid"], value["started"]
        if not isinstance(host, str) or not isinstance(boot, str):
            raise ValueError("host and boot must be strings")
        return Holder(host, boot, int(pid), float(started))
    except (KeyError, TypeError, OverflowError) as error:
        raise ValueError("invalid description of a process") from error


@cache
def _machine() -> tuple[str, str]:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        boot = ""
    return socket.gethostname(), boot


def here() -> Holder:
    """Return the identity of this process."""
    host, boot = _machine()
    return Holder(host, boot, os.getpid(), _started(os.getpid()))


def _started(pid: int) -> float:
    try:
        # the name in parentheses can contain spaces; field 22 is the start time since boot
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return float(text.rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return psutil.Process(pid).create_time()
