"""Verification of downloaded files, and removal of the partial files of killed downloads.

A proxy, a disk or a cable can change bytes without changing their number, and huggingface_hub compares lengths only
(huggingface/huggingface_hub#3643). It also writes a new partial file at each attempt and does not remove earlier ones.
This module does not use the network.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from core.control import ShouldStop
from core.errors import BitwrightError, Cancelled
from core.files import entries, read_json, write_json
from core.home import home
from core.lock import FileLock, is_held, take

_NOTES: Final = "downloads"
_NOTE: Final = "files.json"
_LOCK: Final = "lock"
_CHUNK: Final = 1 << 22
_PARTIAL: Final = re.compile(r"([0-9a-zA-Z-]+)\.[0-9a-f]{8}\.incomplete")
"""Name of a partial file that is never resumed; a name without the second part can be resumed."""


@dataclass(frozen=True)
class Checksums:
    """The checksums that the Hub provides for a file.

    Attributes:
        sha256: of a large (LFS) file, else "".
        blob: Git blob id of a small file, else "". Mirrors provide the SHA-1 of the plain content instead.
    """

    sha256: str = ""
    blob: str = ""

    @classmethod
    def of(cls, sibling: Any) -> Checksums:
        """Return the checksums of an entry of `ModelInfo.siblings`."""
        lfs = getattr(sibling, "lfs", None)
        if lfs:
            return cls(sha256=str(lfs["sha256"]).lower())
        return cls(blob=str(getattr(sibling, "blob_id", None) or "").lower())

    def match(self, path: Path, should_stop: ShouldStop) -> bool:
        """Return whether the file at `path` has these checksums; true if there are none.

        Raises:
            Cancelled: `should_stop` returned true.
            OSError: the file cannot be read.
        """
        if re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            return _digest(path, should_stop, hashlib.sha256()) == self.sha256
        if re.fullmatch(r"[0-9a-f]{40}", self.blob):
            header = b"blob %d\0" % path.stat().st_size
            blob = _digest(path, should_stop, hashlib.sha1(header, usedforsecurity=False))
            return self.blob in (blob, _digest(path, should_stop, hashlib.sha1(usedforsecurity=False)))
        return True


def forget(path: Path) -> None:
    """Remove a file of a snapshot, and the blob in the same cache folder that it links to."""
    blob = path.resolve()
    path.unlink(missing_ok=True)
    if blob.parent.name == "blobs" and blob.parent.parent == path.parent.resolve().parent.parent:
        blob.unlink(missing_ok=True)


class Arrival:
    """A context manager that records a running download in Bitwright's home folder, in case it is killed.

    Args:
        cache: folder of the Hub cache.
        place: name of the repository's folder in the cache.
        names: files to be downloaded.
    """

    def __init__(self, cache: Path, place: str, names: Collection[str]) -> None:
        self._blobs = cache / place / "blobs"
        self._note = home() / _NOTES / secrets.token_hex(8)
        self._value: dict[str, Any] = {"cache": str(cache), "place": place, "names": sorted(names), "partial": []}
        self._before = self._partial()
        self._lock: FileLock | None = None

    def __enter__(self) -> Arrival:
        # without a writable home folder, the download runs unrecorded
        with contextlib.suppress(OSError):
            self._note.mkdir(parents=True)
            self._lock = take(self._note / _LOCK)
            write_json(self._note / _NOTE, self._value)
        return self

    def look(self) -> None:
        """Record new partial files."""
        known = set(self._value["partial"])
        found = self._partial() - self._before
        if self._lock is not None and found - known:
            self._value["partial"] = sorted(known | found)
            with contextlib.suppress(OSError):
                write_json(self._note / _NOTE, self._value)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.look()
        if self._lock is not None:
            self._lock.close()
        if kind is None or not any((self._blobs / name).exists() for name in self._value["partial"]):
            shutil.rmtree(self._note, ignore_errors=True)

    def _partial(self) -> set[str]:
        return {path.name for path in self._blobs.glob("*.incomplete") if _PARTIAL.fullmatch(path.name)}


def sweep(cache: Path, place: str) -> set[str]:
    """Remove the partial files of killed downloads from the cache folder of a repository.

    Returns:
        The names of the files in these downloads, whose checksums were not verified.
    """
    unchecked: set[str] = set()
    for note in entries(home() / _NOTES):
        with contextlib.suppress(OSError, BitwrightError, AttributeError, KeyError, TypeError, ValueError):
            if is_held(note / _LOCK) is not False:
                continue
            value = read_json(note / _NOTE)
            if (value["cache"], value["place"]) != (str(cache), place):
                continue
            unchecked |= {name for name in value["names"] if isinstance(name, str)}
            for name in value["partial"]:
                _remove_partial(cache, place, str(name))
            if not any((cache / place / "blobs" / str(name)).exists() for name in value["partial"]):
                shutil.rmtree(note, ignore_errors=True)
    return unchecked


def _remove_partial(cache: Path, place: str, name: str) -> None:
    """Remove a partial file unless another process holds the lock with which huggingface_hub writes it."""
    found = _PARTIAL.fullmatch(name)
    path = cache / place / "blobs" / name
    if found is None or not path.is_file():
        return
    file = cache / ".locks" / place / f"{found[1]}.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = take(file)
    if lock is not None:
        try:
            path.unlink(missing_ok=True)
        finally:
            lock.close()


def _digest(path: Path, should_stop: ShouldStop, value: Any) -> str:
    with path.open("rb") as stream:
        while data := stream.read(_CHUNK):
            if should_stop():
                raise Cancelled("Stopped while verifying a download.")
            value.update(data)
    return str(value.hexdigest())
