"""The child process of the window's slow calls: `python -P -m core.service.child LOGFILE`.

Requests arrive as JSON lines on stdin, `{"id": 1, "request": "SearchHub", "fields": {...}}`, where the fields are those
of the class in `core.service.messages`. They are answered one after the other with JSON lines
`{"id": 1, "line": EVENT}` on the original stdout; the last event of an answer is a `Result` with the encoded result, or
a `Failed`. `{"stop": 1}` reaches a call while it runs. The end of stdin means that the parent is gone, and the process
ends within a second.
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
from core.jobs.failure import Progressed, failed_from
from core.jobs.process import take_stdin
from core.service.messages import Request

Handler = Callable[[Any, Emit, ShouldStop], Any]
"""A function that takes a request, where its events go, and the stop callback, and returns the request's result."""

LEAVE_AFTER: Final = 0.8
"""Seconds that a call has to stop by itself once the parent is gone."""
LOG_BYTES: Final = 4 << 20
"""A library that talks without end must not fill the disk: a longer log is emptied."""
_LOG_WATCH: Final = 5.0


@dataclass(frozen=True)
class _Order:
    """One request line: the number of the call, the name of the request class, and its encoded fields."""

    number: int
    name: str
    fields: dict[str, Any]


class Orders:
    """What the parent wants, read by a thread of its own: calls in their order, and which of them shall stop."""

    def __init__(self) -> None:
        self._requests: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        self._stopped: set[int] = set()
        self._ended = threading.Event()

    def watch(self, commands: int) -> None:
        """Start to read from the descriptor `commands`, until it ends."""
        threading.Thread(target=self._read, args=(commands,), name="orders", daemon=True).start()

    def next(self) -> _Order | None:
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
                self._requests.put(_Order(int(value["id"]), str(value["request"]), dict(value["fields"])))
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


def serve(orders: Orders, replies: Replies, handlers: Mapping[type[Request[Any]], Handler], log: Path) -> None:
    """Answer requests until there are no more."""
    known = {request.__name__: (request, handler) for request, handler in handlers.items()}
    while (order := orders.next()) is not None:
        _answer(order, orders, replies, known, log)


def _answer(
    order: _Order,
    orders: Orders,
    replies: Replies,
    known: Mapping[str, tuple[type[Request[Any]], Handler]],
    log: Path,
) -> None:
    """Answer one request, up to its `Result` or `Failed`; every exception of the call becomes a `Failed`."""

    def emit(event: Event) -> None:
        replies.send(order.number, event)

    def should_stop() -> bool:
        return orders.stopped(order.number)

    try:
        if should_stop():
            raise Cancelled("Stopped before it began.")
        request, handler = _decoded(order, known)
        emit(Result(encode(handler(request, emit, should_stop))))
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the parent gets every failure as an event
        emit(failed_from(error, Progressed(), log))


def _decoded(order: _Order, known: Mapping[str, tuple[type[Request[Any]], Handler]]) -> tuple[Request[Any], Handler]:
    """Return the request of a line and its handler.

    Raises:
        BadInput: the line is one of another version.
    """
    hint = "Restart Bitwright: the window and its helper process are of different versions."
    if order.name not in known:
        raise BadInput(f"There is no request {order.name!r}.", hint)
    request, handler = known[order.name]
    try:
        return decode(request, order.fields), handler
    except (TypeError, ValueError) as error:
        raise BadInput(f"The request {order.name} is not valid: {error}.", hint) from error


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

    serve(orders, replies, calls.handlers(), Path(sys.argv[1]))
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
