"""The event file of a job: appended by the run, read by any number of followers.

The file is the complete record of a run: a follower that starts late, or after a crash, reads the same events as one
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
"""Bytes read at once."""
_LONGEST_LINE = 16 << 20
_CUT = b"\x18"
"""Ends a line that a crash or a full disk cut, for those who come to it later: the sign that ASCII calls CANCEL."""


class EventLog:
    """Appends events to a file, one write a line, so that lines of two writers never mix.

    A last line without its newline (a crash cut it) is closed first, marked as cut, and nothing is glued to it. May be
    called from several threads. Raises OSError where the disk is full.
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
    """Reads an event file from an offset on, whole lines only; the file need not exist yet.

    A line that is no event is told as a `Log` once another line follows it: as the last one it is what a crash left.
    """

    def __init__(self, path: Path, *, start: int = 0) -> None:
        """Read from byte `start` on. A file that is shorter than `start` is read whole."""
        self._path = path
        size = path.stat().st_size if path.exists() else 0
        self._offset = start if start <= size else 0
        self._rest = b""
        self._doubtful = b""

    def read(self, limit: int = CHUNK) -> list[Event]:
        """The events that were added since the last call, from `limit` more bytes, or more where those end no line."""
        events: list[Event] = []
        while not events:
            try:
                with self._path.open("rb") as stream:
                    stream.seek(self._offset)
                    data = stream.read(limit)
            except OSError:  # not there yet, or damaged: then there is nothing to tell
                return []
            self._offset += len(data)
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                events += self._taken(line)
            if len(self._rest) > _LONGEST_LINE:
                events.append(Log("warning", f"A line of {len(self._rest)} bytes in the event file was skipped."))
                self._rest = b""
            if len(data) < limit:
                break
        return events

    def _taken(self, line: bytes) -> list[Event]:
        """What is told once this line is there: a doubtful one before it, and its own event."""
        whole = line.rstrip(_CUT)
        if not whole.strip():
            return []
        event = parsed(whole.decode("utf-8", "replace"))
        if event is None and len(whole) < len(line):
            return []
        before, self._doubtful = self._doubtful, b"" if event is not None else line
        told: list[Event | None] = [from_line(before.decode("utf-8", "replace")) if before else None, event]
        return [one for one in told if one is not None]


def last_events(path: Path, start: int = 0, window: int = 1 << 16) -> Iterator[Event]:
    """The events in the last `window` bytes (more if those hold no whole line), the last one first.

    Nothing before byte `start` is looked at, unless the file is shorter than that. Each is parsed when it is asked for:
    whoever looks for a job's end finds it in the first.
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
