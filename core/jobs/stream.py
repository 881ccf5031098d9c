"""The event file of a job: written by the run, read by any number of followers.

The file is the complete record of a run. A follower that starts late, or after a crash, reads the same events as one
that was there from the start.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from core.events import Event, Log, from_line, parsed, to_line

CHUNK = 1 << 20
"""Number of bytes to read at once."""
_LONGEST_LINE = 16 << 20
_CUT = b"\x18"
"""Marks the end of a line that was truncated by a crash or a full disk: the ASCII control character CANCEL."""


class EventLog:
    """A file to which events are appended, one write per line, so that lines of two writers never mix.

    A last line without a line break, which a crash has truncated, is marked and terminated first. Thread-safe. Raises
    OSError if the disk is full.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
        self._lock = threading.Lock()
        size = os.lseek(self._descriptor, 0, os.SEEK_END)
        self._torn = False
        if size:
            os.lseek(self._descriptor, size - 1, os.SEEK_SET)
            self._torn = os.read(self._descriptor, 1) != b"\n"

    def __call__(self, event: Event) -> None:
        data = to_line(event).encode("utf-8") + b"\n"
        with self._lock:
            if self._torn:
                data = _CUT + b"\n" + data
            self._torn = True
            view = memoryview(data)
            while view:
                view = view[os.write(self._descriptor, view) :]
            self._torn = False

    def close(self) -> None:
        os.close(self._descriptor)

    def __enter__(self) -> EventLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Follower:
    """A reader of an event file, from an offset on, that returns complete lines only. The file need not exist yet.

    A line that is not an event is returned as a `Log` once another line follows it. As the last line it is ignored,
    since a crash may have truncated it.
    """

    def __init__(self, path: Path, *, start: int = 0) -> None:
        """Start at byte `start`, or at the beginning if the file is shorter than that."""
        self._path = path
        size = path.stat().st_size if path.exists() else 0
        self._offset = start if start <= size else 0
        self._rest = b""
        self._invalid = b""

    def read(self, limit: int = CHUNK) -> list[Event]:
        """Return the events that were added since the last call.

        Args:
            limit: Number of bytes to read at once; more are read until they contain the end of a line.
        """
        events: list[Event] = []
        while not events:
            try:
                with self._path.open("rb") as stream:
                    stream.seek(self._offset)
                    data = stream.read(limit)
            except OSError:  # the file does not exist yet, or cannot be read
                return []
            self._offset += len(data)
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                events += self._events_of_line(line)
            if len(self._rest) > _LONGEST_LINE:
                events.append(Log("warning", f"A line of {len(self._rest)} bytes in the event file was skipped."))
                self._rest = b""
            if len(data) < limit:
                break
        return events

    def _events_of_line(self, line: bytes) -> list[Event]:
        """Return the event of a line, after the `Log` of a previous line that was not an event."""
        whole = line.rstrip(_CUT)
        if not whole.strip():
            return []
        event = parsed(whole.decode("utf-8", "replace"))
        if event is None and len(whole) < len(line):
            return []
        before, self._invalid = self._invalid, b"" if event is not None else line
        events: list[Event | None] = [from_line(before.decode("utf-8", "replace")) if before else None, event]
        return [one for one in events if one is not None]


def last_events(path: Path, start: int = 0, window: int = 1 << 16) -> Iterator[Event]:
    """Yield the events at the end of an event file, the last one first.

    Lines are parsed lazily: the event that ends a job is the first one.

    Args:
        start: Offset in bytes before which nothing is read, unless the file is shorter.
        window: Number of bytes to read; enlarged until they contain a complete line.
    """
    try:
        size = path.stat().st_size
        start = start if start <= size else 0
        while True:
            with path.open("rb") as stream:
                stream.seek(max(start, size - window))
                data = stream.read(window)
            whole_file = window >= min(size - start, _LONGEST_LINE)
            first = 0 if window >= size - start else data.find(b"\n") + 1
            whole = data[first : data.rfind(b"\n") + 1]
            if whole.strip() or whole_file:
                lines = whole.split(b"\n")
                break
            window *= 8
    except OSError:
        return
    yield from (from_line(line.decode("utf-8", "replace")) for line in reversed(lines) if line.strip())
