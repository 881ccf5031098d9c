"""The child process of the window's slow questions: `python -P -m core.service.child LOGFILE`.

Requests come as JSON lines on stdin, `{"id": 1, "call": "search", "arguments": {...}}`, and are answered one after the
other with JSON lines `{"id": 1, "line": EVENT}` on what was stdout; the last event of an answer is a `Result` or a
`Failed`. `{"stop": 1}` reaches a call while it runs. The end of stdin means that the parent is gone, and the process
leaves within a second. Knows nothing of what the calls do (`core.service.calls`), nor of who asks.
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

from core.errors import BadInput, Cancelled
from core.events import Emit, Event, Result, to_line
from core.jobs.failure import Progressed, failed_from
from core.jobs.process import take_stdin

Served = Callable[[Mapping[str, Any], Emit, Callable[[], bool]], dict[str, Any]]
"""One call: its arguments, where its events go, and whether it shall stop; returns the values of its `Result`."""

LEAVE_AFTER: Final = 0.8
"""Seconds that a call has to stop by itself once the parent is gone."""
LOG_BYTES: Final = 4 << 20
"""A library that talks without end must not fill the disk: a longer log is emptied."""
_LOG_WATCH: Final = 5.0


@dataclass(frozen=True)
class Request:
    """One call that the parent wants."""

    number: int
    call: str
    arguments: Mapping[str, Any]


class Orders:
    """What the parent wants, read by a thread of its own: calls in their order, and which of them shall stop."""

    def __init__(self) -> None:
        self._requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._stopped: set[int] = set()
        self._ended = threading.Event()

    def watch(self, commands: int) -> None:
        """Start to read from the descriptor `commands`, until it ends."""
        threading.Thread(target=self._read, args=(commands,), name="orders", daemon=True).start()

    def next(self) -> Request | None:
        """The next call, waited for; None when the parent is gone."""
        return self._requests.get()

    def stopped(self, number: int) -> bool:
        """Whether the call of this number shall stop."""
        return number in self._stopped or self._ended.is_set()

    def _read(self, commands: int) -> None:
        with os.fdopen(commands, "rb") as stream:
            for line in stream:
                self._take(line)
        self._ended.set()
        self._requests.put(None)
        # a call may sit in native code, where no question reaches it
        time.sleep(LEAVE_AFTER)
        os._exit(0)

    def _take(self, line: bytes) -> None:
        try:
            value = json.loads(line)
            if "stop" in value:
                self._stopped.add(int(value["stop"]))
            else:
                self._requests.put(Request(int(value["id"]), str(value["call"]), dict(value["arguments"])))
        except (ValueError, KeyError, TypeError, RecursionError):
            sys.stderr.write(f"not a request: {line[:200]!r}\n")


class Replies:
    """Events on their way to the parent, one line each, from any thread."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def send(self, number: int, event: Event) -> None:
        """Write one event of the call `number`; ends the process where nobody reads any more."""
        view = memoryview(json.dumps({"id": number, "line": to_line(event)}).encode("ascii") + b"\n")
        with self._lock:
            try:
                while view:
                    view = view[os.write(self._descriptor, view) :]
            except OSError:
                os._exit(0)


def serve(orders: Orders, replies: Replies, table: Mapping[str, Served], log: Path) -> None:
    """Answer requests until there are no more."""
    while (request := orders.next()) is not None:
        answer(request, orders, replies, table, log)


def answer(request: Request, orders: Orders, replies: Replies, table: Mapping[str, Served], log: Path) -> None:
    """One call from its first event to the `Result` or `Failed` that ends it; raises nothing that the call raises."""

    def emit(event: Event) -> None:
        replies.send(request.number, event)

    def should_stop() -> bool:
        return orders.stopped(request.number)

    try:
        if should_stop():
            raise Cancelled("Stopped before it began.")
        if request.call not in table:
            raise BadInput(f"There is no call {request.call!r}.", "It may be one of another version of Bitwright.")
        emit(Result(table[request.call](request.arguments, emit, should_stop)))
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - whatever it was, the parent must hear of it
        emit(failed_from(error, Progressed(), log))


def main() -> int:
    """Entry of the child; its only argument is the log file that stderr goes to."""
    faulthandler.enable()
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python -P -m core.service.child LOGFILE\n")
        return 2
    orders, replies = Orders(), Replies(_take_stdout())
    orders.watch(take_stdin())
    threading.Thread(target=_bound_log, name="log", daemon=True).start()
    # after the streams are safe, and after the parent's end is noticed: imports print, and take their time
    from core.service import calls

    serve(orders, replies, calls.table(), Path(sys.argv[1]))
    return 0


def _take_stdout() -> int:
    """A private copy of stdout; descriptor 1 becomes stderr, so that nothing a library prints is taken for a reply."""
    replies = os.dup(1)
    os.dup2(2, 1)
    return replies


def _bound_log() -> None:
    while True:
        time.sleep(_LOG_WATCH)
        try:
            if os.fstat(2).st_size > LOG_BYTES:
                os.ftruncate(2, 0)  # opened for appending, so the next line begins the file
        except OSError:
            return  # not a file


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # not sys.exit: threads that are left behind in a native call would hold an interpreter that ends
    os._exit(code)
