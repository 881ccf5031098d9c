"""Parent side of `core.service.child`: starts the child process, sends requests, and ends it reliably.

All calls block; a window makes them from a thread. Independent of the content of the requests.
"""

from __future__ import annotations

import contextlib
import json
import queue
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, TypeVar

from core.codec import decode, encode
from core.control import ShouldStop, never
from core.errors import BitwrightError, Cancelled, ChildDied
from core.events import Event, Failed, Log, Result, from_line
from core.home import home
from core.jobs import process
from core.jobs.failure import error_of_event
from core.jobs.process import exit_cause, last_log_line
from core.service.messages import Request, result_type

PATIENCE: Final = 1.5
"""Seconds between a request to stop and the end of the child by force."""
KEPT_LOGS: Final = 20

_POLL: Final = 0.05
_LEAVE: Final = 1.2
"""Seconds for the child to end after the end of its stdin; it ends at once, or after its own limit of 0.8 s."""
_LONGEST_LINE: Final = 64 << 20
_AHEAD: Final = 500
"""Events that are buffered; when the buffer is full, the child blocks."""

R = TypeVar("R")
_Message = tuple[int | None, Event]


class Service:
    """A child process that executes requests, one at a time; it is started with the first request.

    A child that died is replaced at the next call. All methods except `close` and `kill` belong to one thread.

    Args:
        patience: seconds between a request to stop and the end of the child by force.
        command: command of the child, for tests; the path of the log is appended.
    """

    def __init__(self, *, patience: float = PATIENCE, command: Sequence[str] | None = None) -> None:
        self._patience = patience
        self._command = list(command or [sys.executable, "-P", "-m", "core.service.child"])
        self._child: _Child | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._number = 0

    @property
    def alive(self) -> bool:
        """State of the child: true if it runs."""
        child = self._child
        return child is not None and child.running

    def start(self) -> None:
        """Start the child ahead of the first call.

        Raises:
            ChildDied: the child could not be started.
            Cancelled: the service is closed.
        """
        self._running()

    def call(self, request: Request[R], should_stop: ShouldStop = never) -> Generator[Event, None, R]:
        """Send a request to the child, yield the events of the call and return its result.

        Closing the generator stops the call; the next call waits for its end.

        Raises:
            BitwrightError: the call failed, or the result is of another version.
            ChildDied: the child ended without a result.
            Cancelled: the call was stopped before it returned a result, or the service was closed.
        """
        child = self._running()
        self._number += 1
        number = self._number
        child.send({"id": number, "request": type(request).__name__, "fields": encode(request)})
        asked: float | None = None
        answered = False
        try:
            while True:
                event = child.read(number, _POLL)
                if isinstance(event, Result):
                    answered = True
                    return _result(request, event)
                if isinstance(event, Failed):
                    answered = True
                    raise error_of_event(event)
                if event is not None:
                    yield event
                if asked is None and should_stop():
                    asked = time.monotonic()
                    child.send({"stop": number})
                elif asked is not None and time.monotonic() - asked > self._patience:
                    raise EOFError
        except EOFError:
            answered = True
            self._drop(child)
            death = child.end(0.0 if asked is not None else 0.5)
            if asked is not None or self._closed:
                raise Cancelled("Stopped.") from None
            raise death from None
        finally:
            if not answered:
                child.send({"stop": number})

    def close(self) -> None:
        """End the child within about a second and start no other; cancel a call in another thread."""
        child = self._shut()
        if child is not None:
            child.end(_LEAVE)

    def kill(self) -> None:
        """Kill the child without waiting for its end; requires `close` afterwards, or a call in another thread."""
        with self._lock:
            self._closed = True
            if self._child is not None:
                self._child.kill()

    def __enter__(self) -> Service:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _running(self) -> _Child:
        with self._lock:
            if self._closed:
                raise Cancelled("Stopped.")
            if self._child is not None and not self._child.running:
                self._child.end(0.0)
                self._child = None
            if self._child is None:
                self._child = _started(self._command)
            return self._child

    def _drop(self, child: _Child) -> None:
        with self._lock:
            if self._child is child:
                self._child = None

    def _shut(self) -> _Child | None:
        with self._lock:
            self._closed = True
            child, self._child = self._child, None
            return child


class _Child:
    """One process with a thread for each pipe, so that a full or empty pipe blocks only its thread."""

    def __init__(self, argv: Sequence[str], log: Path) -> None:
        self._log = log
        self._process = process.start(argv, log, replies=True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._incoming: queue.Queue[_Message] = queue.Queue(_AHEAD)
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._pipe_ended = threading.Event()
        self._ending = threading.Event()
        self._died: float | None = None
        self._threads = (
            threading.Thread(target=self._read, args=(self._process.stdout,), name="service-replies", daemon=True),
            threading.Thread(target=self._write, args=(self._process.stdin,), name="service-requests", daemon=True),
        )
        for thread in self._threads:
            thread.start()

    @property
    def running(self) -> bool:
        return self._process.poll() is None and not self._pipe_ended.is_set()

    def send(self, value: Mapping[str, Any]) -> None:
        """Queue a request without blocking; it is dropped if the child has ended."""
        self._outgoing.put(json.dumps(value).encode("ascii") + b"\n")

    def read(self, number: int, seconds: float) -> Event | None:
        """Return the next event of the call `number`; None if there is none within `seconds`.

        Raises:
            EOFError: the child sends no more events.
        """
        try:
            found, event = self._incoming.get(timeout=seconds)
        except queue.Empty:
            if self._pipe_ended.is_set() and self._incoming.empty():
                raise EOFError from None
            if self._process.poll() is not None:
                # a process that the child started may keep the pipe open
                self._died = self._died or time.monotonic()
                if time.monotonic() - self._died > 1.0:
                    raise EOFError from None
            return None
        return event if found in (number, None) else None

    def kill(self) -> None:
        """Kill the child and its child processes."""
        process.kill(self._process)

    def end(self, seconds: float) -> ChildDied:
        """Wait `seconds` for the child to end, then kill it; return the error that describes its end."""
        self._ending.set()
        self._outgoing.put(None)
        ended = True
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            ended = False
            self.kill()
            with contextlib.suppress(
                subprocess.TimeoutExpired
            ):  # a process that waits for a failed disk cannot be killed
                self._process.wait(2.0)
        for thread in self._threads:
            thread.join(1.0)
        death = self._death(ended)
        with contextlib.suppress(OSError):
            if self._log.stat().st_size == 0:
                self._log.unlink()
        return death

    def _death(self, ended: bool) -> ChildDied:
        code = self._process.returncode
        if ended and code is not None:
            message = f"The child process {exit_cause(code)[0]}."
        else:
            message = "The child process closed the connection without a result and was ended."
        words = last_log_line(self._log)
        hint = "Close other programs, or use a smaller model." if code == -9 and ended else "Try again."
        return ChildDied(f"{message}{f' Its last output: {words}' if words else ''}", f"{hint} The log is {self._log}")

    def _read(self, stream: IO[bytes]) -> None:
        """Queue messages until the pipe ends or a line is too long; then close the pipe."""
        with stream:
            while (line := stream.readline(_LONGEST_LINE)).endswith(b"\n"):
                message = _message(line)
                while not self._ending.is_set():
                    try:
                        self._incoming.put(message, timeout=0.2)
                        break
                    except queue.Full:
                        continue
        self._pipe_ended.set()

    def _write(self, stream: IO[bytes]) -> None:
        with contextlib.suppress(OSError):  # the child has ended, which the other pipe reports
            while (data := self._outgoing.get()) is not None:
                stream.write(data)
                stream.flush()
        with contextlib.suppress(OSError):
            stream.close()


def _result(request: Request[R], event: Result) -> R:
    try:
        return decode(result_type(type(request)), event.values)
    except (TypeError, ValueError) as error:
        name = type(request).__name__
        raise BitwrightError(
            f"The child process returned an invalid result for {name}: {error}.",
            "Restart Bitwright: the window and its child process have different versions.",
        ) from error


def _started(command: Sequence[str]) -> _Child:
    try:
        log = _new_log()
        return _Child([*command, str(log)], log)
    except OSError as error:
        raise ChildDied(
            f"The child process could not be started: {error.strerror or error}.", f"Check {home()}."
        ) from error


def _new_log() -> Path:
    """Return the path of a new log file and delete old ones; a temporary file if the data folder is not writable."""
    folder = home() / "logs"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError:
        return Path(tempfile.mkdtemp(prefix="bitwright-")) / "service.txt"
    for old in sorted(folder.glob("service-*.txt"))[: -(KEPT_LOGS - 1)]:
        with contextlib.suppress(OSError):
            old.unlink()
    return folder / f"service-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}-{secrets.token_hex(2)}.txt"


def _message(line: bytes) -> _Message:
    """Return the number of the call and its event; an invalid line becomes a `Log` event of the current call."""
    try:
        value = json.loads(line)
        return int(value["id"]), from_line(str(value["line"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None, Log("warning", line.decode("utf-8", "replace").strip()[:2000])
