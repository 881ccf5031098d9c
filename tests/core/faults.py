"""Injection of failures into file operations: the Nth operation in a folder fails, in any library.

Counted are opening for writing, writing, fsync, rename, mkdir, unlink, rmdir and the copying of a file, as far as they
go through Python.
"""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_ID = re.compile(r"\d{8}-\d{6}-\d{6}-[0-9a-f]{4}")


@dataclass
class Faults:
    """Counter of file operations in `root` that fails one of them with the error number `code`.

    Attributes:
        fail: which one fails, from 1; 0 for none.
        match: what fails, by the begin of its entry in `seen`, instead of its number; JOB stands for the id of a job.
        lasting: all after that one, or all that match, fail as well.
        seen: operation and path below `root` of each that was counted.
        met: one has failed.
    """

    root: Path
    fail: int = 0
    code: int = 0
    lasting: bool = False
    match: str = ""
    seen: list[str] = field(default_factory=list)
    met: bool = False

    def meet(self, operation: str, path: Any) -> None:
        """Count an operation, and raise if it is the selected one."""
        if isinstance(path, int):
            try:
                path = os.readlink(f"/proc/self/fd/{path}")
            except OSError:
                return
        text = os.path.abspath(os.fsdecode(path))
        if not text.startswith(str(self.root)):
            return
        self.seen.append(_ID.sub("JOB", f"{operation} {os.path.relpath(text, self.root)}"))
        number = len(self.seen)
        due = number == self.fail or (self.lasting and 0 < self.fail < number)
        if self.match and self.seen[-1].startswith(self.match):
            due = self.lasting or not self.met
        if due:
            self.met = True
            raise OSError(self.code, os.strerror(self.code), text)


class _Stream:
    """A file that was opened for writing; its writes are counted."""

    def __init__(self, stream: Any, path: Any, faults: Faults) -> None:
        self._stream, self._path, self._faults = stream, path, faults

    def write(self, data: Any) -> Any:
        self._faults.meet("write", self._path)
        return self._stream.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *_ended: object) -> None:
        self._stream.close()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._stream)


@contextmanager
def injected(faults: Faults) -> Iterator[Faults]:
    """The file operations of this process as `faults` wants them, while the block lasts."""
    real: dict[tuple[Any, str], Callable[..., Any]] = {}

    def replace(module: Any, name: str, new: Callable[..., Any]) -> None:
        real[module, name] = getattr(module, name)
        setattr(module, name, new)

    def one(operation: str, module: Any, name: str, which: int = 0) -> None:
        call = getattr(module, name)

        def counted(*args: Any, **more: Any) -> Any:
            if more.get("dir_fd") is None:
                faults.meet(operation, args[which])
            return call(*args, **more)

        replace(module, name, counted)

    open_io, open_os = io.open, os.open

    def opened(path: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
        if not set(mode) & set("wax+") or isinstance(path, int):
            return open_io(path, mode, *args, **more)
        faults.meet("open", path)
        return _Stream(open_io(path, mode, *args, **more), path, faults)

    def opened_low(path: Any, flags: int, *args: Any, **more: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR) and more.get("dir_fd") is None:
            faults.meet("open", path)
        return open_os(path, flags, *args, **more)

    one("rename", os, "rename", 1)
    one("rename", os, "replace", 1)
    one("mkdir", os, "mkdir")
    one("unlink", os, "unlink")
    one("rmdir", os, "rmdir")
    one("fsync", os, "fsync")
    one("write", os, "write")
    one("copy", shutil, "copyfile", 1)
    replace(io, "open", opened)
    replace(os, "open", opened_low)
    try:
        yield faults
    finally:
        for (module, name), call in real.items():
            setattr(module, name, call)
