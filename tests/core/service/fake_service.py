"""Child process for the tests of `core.service.client`: `python fake_service.py BEHAVIOUR LOG`.

`served` runs the real service with fast calls; the other functions behave incorrectly.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.control import ShouldStop
from core.errors import BadInput, Cancelled
from core.events import Emit, Log, Progress, Result, Token, to_line
from core.inference.generation.reply import ChatAnswer, Statistics
from core.jobs import process
from core.service import child
from core.service.messages import Request, Say

# --- requests ---


@dataclass(frozen=True)
class Echoed:
    pid: int
    text: str
    number: int
    free: Any


@dataclass(frozen=True)
class Echo(Request[Echoed]):
    """Emit `count` events, then return the fields and the process id."""

    text: str = ""
    number: int = 0
    count: int = 3
    free: Any = None


@dataclass(frozen=True)
class Words:
    words: int
    ended_by: str


@dataclass(frozen=True)
class Stream(Request[Words]):
    """Emit words until stopped, like an answer of a chat."""

    words: int = 1_000_000


@dataclass(frozen=True)
class Nothing:
    pass


@dataclass(frozen=True)
class Wait(Request[Nothing]):
    """Wait until stopped."""


@dataclass(frozen=True)
class Deaf(Request[Nothing]):
    """Ignore stops, like a native call that does not return."""


@dataclass(frozen=True)
class Wrong(Request[Nothing]):
    """A request that raises `BadInput`."""


@dataclass(frozen=True)
class Buggy(Request[Nothing]):
    """A request that raises an unexpected exception."""


@dataclass(frozen=True)
class Value:
    value: Any


@dataclass(frozen=True)
class Unencodable(Request[Value]):
    """A request whose result cannot be encoded as JSON."""


@dataclass(frozen=True)
class Untrue(Request[Words]):
    """A request whose result has another class than declared."""


@dataclass(frozen=True)
class Unknown(Request[Nothing]):
    """A request without a handler."""


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Noisy(Request[Text]):
    """Print to stdout and read from stdin, as libraries may do."""


@dataclass(frozen=True)
class Crash(Request[Nothing]):
    signal: str


@dataclass(frozen=True)
class Leave(Request[Nothing]):
    code: int


# --- handlers of the real service ---


def echo(request: Echo, emit: Emit, should_stop: ShouldStop) -> Echoed:
    for number in range(request.count):
        emit(Progress(number / 3, -1.0, -1.0))
    return Echoed(os.getpid(), request.text, request.number, request.free)


def stream(request: Stream, emit: Emit, should_stop: ShouldStop) -> Words:
    words = 0
    while not should_stop() and words < request.words:
        emit(Token("word "))
        words += 1
    return Words(words, "stopped" if should_stop() else "length")


def say(request: Say, emit: Emit, should_stop: ShouldStop) -> ChatAnswer:
    found = stream(Stream(request.sampling.max_tokens), emit, should_stop)
    return ChatAnswer(statistics=Statistics(tokens=found.words, ended_by=found.ended_by))


def wait(request: Wait, emit: Emit, should_stop: ShouldStop) -> Nothing:
    emit(Log("info", "waiting"))
    while not should_stop():
        time.sleep(0.01)
    raise Cancelled("Stopped.")


def deaf(request: Deaf, emit: Emit, should_stop: ShouldStop) -> Nothing:
    emit(Log("info", str(os.getpid())))
    time.sleep(600)
    return Nothing()


def wrong(request: Wrong, emit: Emit, should_stop: ShouldStop) -> Nothing:
    raise BadInput("The request is wrong.", "Change it.")


def buggy(request: Buggy, emit: Emit, should_stop: ShouldStop) -> Nothing:
    raise ZeroDivisionError("a bug\nwith two lines")


def unencodable(request: Unencodable, emit: Emit, should_stop: ShouldStop) -> Value:
    return Value(object())


def untrue(request: Untrue, emit: Emit, should_stop: ShouldStop) -> Text:
    return Text("no words")


def noisy(request: Noisy, emit: Emit, should_stop: ShouldStop) -> Text:
    sys.stdout.write('{"id": 1, "line": "no reply"}\n')
    sys.stdout.flush()
    return Text(sys.stdin.read())


def crash(request: Crash, emit: Emit, should_stop: ShouldStop) -> Nothing:
    sys.stderr.write("loading\nabout to die\n")
    sys.stderr.flush()
    os.kill(os.getpid(), getattr(signal, request.signal))
    time.sleep(600)
    return Nothing()


def leave(request: Leave, emit: Emit, should_stop: ShouldStop) -> Nothing:
    os._exit(request.code)


HANDLERS: dict[type[Request[Any]], child.Handler] = {
    Echo: echo,
    Stream: stream,
    Say: say,
    Wait: wait,
    Deaf: deaf,
    Wrong: wrong,
    Buggy: buggy,
    Unencodable: unencodable,
    Untrue: untrue,
    Noisy: noisy,
    Crash: crash,
    Leave: leave,
}


def served(log: Path) -> None:
    requests, replies = child.RequestReader(), child.ReplyWriter(child._take_stdout())
    requests.watch(process.take_stdin())
    child.serve(requests, replies, HANDLERS, log)
    os._exit(0)


# --- children that behave incorrectly ---


def received() -> Iterator[dict[str, Any]]:
    for line in sys.stdin:
        value = json.loads(line)
        if "request" in value:
            yield value


def reply(number: int, line: str) -> None:
    sys.stdout.write(json.dumps({"id": number, "line": line}) + "\n")
    sys.stdout.flush()


def garbage(log: Path) -> None:
    """Send invalid bytes, invalid JSON and replies to unknown calls around one valid result."""
    for request in received():
        sys.stdout.buffer.write(b"\xff\xfe\x00 not json\n{}\n[]\n\n" + b'{"id": "x", "line": 3}\n')
        sys.stdout.flush()
        reply(999, to_line(Result({"pid": 1, "text": "of another", "number": 0, "free": None})))
        reply(request["id"], "no event")
        reply(request["id"], to_line(Result({"pid": 1, "text": "answer", "number": 42, "free": None})))


def flood(log: Path) -> None:
    """Send events without end and ignore stops."""
    for request in received():
        line = to_line(Log("info", "x" * 200))
        while True:
            reply(request["id"], line)


def endless_line(log: Path) -> None:
    for _ in received():
        while True:
            sys.stdout.write("x" * (1 << 20))


def silent(log: Path) -> None:
    """Never read and never reply."""
    time.sleep(600)


def mute(log: Path) -> None:
    """Close stdout and keep running."""
    for _ in received():
        os.close(1)
        time.sleep(600)


def grandchild(log: Path) -> None:
    """End, and leave a process that keeps the pipes open."""
    for _ in received():
        left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        sys.stderr.write(f"{left.pid}\n")
        sys.stderr.flush()
        os._exit(5)


def at_once(log: Path) -> None:
    sys.stderr.write("no\n")
    sys.stderr.flush()
    os._exit(7)


CHILDREN = {
    child.__name__.replace("_", "-"): child
    for child in (served, garbage, flood, endless_line, silent, mute, grandchild, at_once)
}


if __name__ == "__main__":
    CHILDREN[sys.argv[1]](Path(sys.argv[2]))
