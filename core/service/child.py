"""Child process that executes the requests of the window: `python -P -m core.service.child LOGFILE`.

Requests are JSON lines on stdin, `{"id": 1, "request": "SearchHub", "fields": {...}}`, where the fields are those of
the class in `core.service.messages`. They are executed one after the other. The replies are JSON lines
`{"id": 1, "line": EVENT}` on the original stdout; the last event of a call is a `Result` with the encoded result, or a
`Failed`. `{"stop": 1}` stops a running call. The end of stdin means that the parent has ended, and the process ends
within a second.
"""

from __future__ import annotations

import faulthandler
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from core.codec import decode, encode
from core.control import ShouldStop
from core.errors import BadInput, Cancelled
from core.events import Emit, Event, Result, to_line
from core.jobs.failure import RunProgress, failed_event
from core.jobs.process import take_stdin
from core.service.messages import Request

Handler = Callable[[Any, Emit, ShouldStop], Any]
"""A function that takes a request, the callback for its events and the stop callback, and returns the result."""

LEAVE_AFTER: Final = 0.8
"""Seconds for a running call to stop after the parent has ended."""
LOG_BYTES: Final = 4 << 20
"""Largest size of the log; a larger log is truncated, so that output of libraries cannot fill the disk."""
_LOG_WATCH: Final = 5.0


@dataclass(frozen=True)
class _RequestLine:
    """One request: the number of the call, the name of the request class, and its encoded fields."""

    number: int
    name: str
    fields: dict[str, Any]


class RequestReader:
    """Queue of requests and set of stopped calls, filled by a thread that reads the pipe of the parent."""

    def __init__(self) -> None:
        self._requests: queue.SimpleQueue[_RequestLine | None] = queue.SimpleQueue()
        self._stopped: set[int] = set()
        self._ended = threading.Event()

    def watch(self, commands: int) -> None:
        """Start a thread that reads from the descriptor `commands` until its end."""
        threading.Thread(target=self._read, args=(commands,), name="requests", daemon=True).start()

    def next(self) -> _RequestLine | None:
        """Wait for the next request and return it; None after the end of the pipe."""
        return self._requests.get()

    def stopped(self, number: int) -> bool:
        """Return whether the call with this number has to stop."""
        return number in self._stopped or self._ended.is_set()

    def _read(self, commands: int) -> None:
        with os.fdopen(commands, "rb") as stream:
            for line in stream:
                self._take(line)
        self._ended.set()
        self._requests.put(None)
        # a call in native code does not check the stop callback
        time.sleep(LEAVE_AFTER)
        os._exit(0)

    def _take(self, line: bytes) -> None:
        try:
            value = json.loads(line)
            if "stop" in value:
                self._stopped.add(int(value["stop"]))
            else:
                self._requests.put(_RequestLine(int(value["id"]), str(value["request"]), dict(value["fields"])))
        except (ValueError, KeyError, TypeError, RecursionError):
            sys.stderr.write(f"invalid request: {line[:200]!r}\n")


class ReplyWriter:
    """Writer of events to the pipe of the parent, one line each; usable from all threads."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def send(self, number: int, event: Event) -> None:
        """Write one event of the call `number`; end the process if the pipe is closed."""
        view = memoryview(json.dumps({"id": number, "line": to_line(event)}).encode("ascii") + b"\n")
        with self._lock:
            try:
                while view:
                    view = view[os.write(self._descriptor, view) :]
            except OSError:
                os._exit(0)


def serve(
    requests: RequestReader, replies: ReplyWriter, handlers: Mapping[type[Request[Any]], Handler], log: Path
) -> None:
    """Execute requests until the end of the pipe."""
    known = {request.__name__: (request, handler) for request, handler in handlers.items()}
    while (line := requests.next()) is not None:
        _answer(line, requests, replies, known, log)


def _answer(
    line: _RequestLine,
    requests: RequestReader,
    replies: ReplyWriter,
    known: Mapping[str, tuple[type[Request[Any]], Handler]],
    log: Path,
) -> None:
    """Execute one request and send its events, with a final `Result`, or `Failed` for an exception."""

    def emit(event: Event) -> None:
        replies.send(line.number, event)

    def should_stop() -> bool:
        return requests.stopped(line.number)

    try:
        if should_stop():
            raise Cancelled("Stopped before the start.")
        request, handler = _decoded(line, known)
        emit(Result(encode(handler(request, emit, should_stop))))
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - every failure is reported as an event
        emit(failed_event(error, RunProgress(), log))


def _decoded(
    line: _RequestLine, known: Mapping[str, tuple[type[Request[Any]], Handler]]
) -> tuple[Request[Any], Handler]:
    """Return the request of a line and its handler.

    Raises:
        BadInput: the parent has another version.
    """
    hint = "Restart Bitwright: the window and its child process have different versions."
    if line.name not in known:
        raise BadInput(f"Unknown request {line.name!r}.", hint)
    request, handler = known[line.name]
    try:
        return decode(request, line.fields), handler
    except (TypeError, ValueError) as error:
        raise BadInput(f"The request {line.name} is not valid: {error}.", hint) from error


def main() -> int:
    """Run the child process; its only argument is the log file, to which stderr is redirected."""
    faulthandler.enable()
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python -P -m core.service.child LOGFILE\n")
        return 2
    requests, replies = RequestReader(), ReplyWriter(_take_stdout())
    requests.watch(take_stdin())
    threading.Thread(target=_bound_log, name="log", daemon=True).start()
    # Imported after the streams are redirected and monitored, because imports are slow and may print.
    from core.service import calls

    serve(requests, replies, calls.handlers(), Path(sys.argv[1]))
    return 0


def _take_stdout() -> int:
    """Return a copy of stdout; redirect descriptor 1 to stderr, so that output of libraries is not read as a reply."""
    replies = os.dup(1)
    os.dup2(2, 1)
    return replies


def _bound_log() -> None:
    while True:
        time.sleep(_LOG_WATCH)
        try:
            if os.fstat(2).st_size > LOG_BYTES:
                os.ftruncate(2, 0)  # opened in append mode, so the next line is written to the beginning
        except OSError:
            return  # not a file


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit, which would wait for threads in native calls.
    os._exit(code)
