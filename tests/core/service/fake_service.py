"""A child for the tests of `core.child.client`: `python fake_service.py BEHAVIOUR LOG`, one behaviour a function.

`served` is the real service with quick calls; the others misbehave in ways that it never should.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from core.errors import BadInput, Cancelled
from core.events import Emit, Log, Progress, Result, Token, to_line
from core.jobs import process
from core.service import child

Asked = Callable[[], bool]


# --- calls of the real service ---


def echo(arguments: Mapping[str, Any], emit: Emit, should_stop: Asked) -> dict[str, Any]:
    """Count, then give back what came, and who answers."""
    for number in range(int(arguments.get("count", 3))):
        emit(Progress(number / 3, -1.0, -1.0))
    return {"pid": os.getpid(), **arguments}


def talk(arguments: Mapping[str, Any], emit: Emit, should_stop: Asked) -> dict[str, Any]:
    """Words until it is stopped, as an answer of a chat."""
    words = 0
    while not should_stop() and words < int(arguments.get("words", 1_000_000)):
        emit(Token("word "))
        words += 1
    return {"words": words, "ended_by": "stopped" if should_stop() else "length"}


def wait(arguments: Mapping[str, Any], emit: Emit, should_stop: Asked) -> dict[str, Any]:
    """Work that stops when it is asked to."""
    emit(Log("info", "waiting"))
    while not should_stop():
        time.sleep(0.01)
    raise Cancelled("Stopped.")


def deaf(arguments: Mapping[str, Any], emit: Emit, should_stop: Asked) -> dict[str, Any]:
    """Like a native call that never returns."""
    emit(Log("info", str(os.getpid())))
    time.sleep(600)
    return {}


def wrong(arguments: Mapping[str, Any], emit: Emit, should_stop: Asked) -> dict[str, Any]:
    raise BadInput("The request is wrong.", "Make another.")


def buggy(arguments: Mapping[str, Any], emit: Emit, should_stop: Asked) -> dict[str, Any]:
    raise ZeroDivisionError("a bug\nwith two lines")


def unspeakable(arguments: Mapping[str, Any], emit: Emit, should_stop: Asked) -> dict[str, Any]:
    """A result that JSON cannot hold."""
    return {"value": object()}


def noisy(arguments: Mapping[str, Any], emit: Emit, should_stop: Asked) -> dict[str, Any]:
    """Prints, as libraries do, and reads stdin, as one that asks a question does."""
    sys.stdout.write('{"id": 1, "line": "no reply"}\n')
    sys.stdout.flush()
    return {"read": sys.stdin.read()}


def crash(arguments: Mapping[str, Any], emit: Emit, should_stop: Asked) -> dict[str, Any]:
    sys.stderr.write("loading\nabout to die\n")
    sys.stderr.flush()
    os.kill(os.getpid(), getattr(signal, arguments["signal"]))
    time.sleep(600)
    return {}


def leave(arguments: Mapping[str, Any], emit: Emit, should_stop: Asked) -> dict[str, Any]:
    os._exit(int(arguments["code"]))


CALLS = {call.__name__: call for call in (echo, talk, wait, deaf, wrong, buggy, unspeakable, noisy, crash, leave)}
"""By name; `chat_say` is what the window calls `talk`."""
CALLS["chat_say"] = talk


def served(log: Path) -> None:
    orders, replies = child.Orders(), child.Replies(child._take_stdout())
    orders.watch(process.take_stdin())
    child.serve(orders, replies, CALLS, log)
    os._exit(0)


# --- children that keep to nothing ---


def requests() -> Iterator[dict[str, Any]]:
    for line in sys.stdin:
        value = json.loads(line)
        if "call" in value:
            yield value


def reply(number: int, line: str) -> None:
    sys.stdout.write(json.dumps({"id": number, "line": line}) + "\n")
    sys.stdout.flush()


def garbage(log: Path) -> None:
    """Bytes, torn JSON and replies to questions that nobody asked, around one good answer."""
    for request in requests():
        sys.stdout.buffer.write(b"\xff\xfe\x00 not json\n{}\n[]\n\n" + b'{"id": "x", "line": 3}\n')
        sys.stdout.flush()
        reply(999, to_line(Result({"answer": "of another"})))
        reply(request["id"], "no event")
        reply(request["id"], to_line(Result({"answer": 42})))


def flood(log: Path) -> None:
    """Events as fast as they can be written, and no word of a stop is heard."""
    for request in requests():
        line = to_line(Log("info", "x" * 200))
        while True:
            reply(request["id"], line)


def endless_line(log: Path) -> None:
    for _ in requests():
        while True:
            sys.stdout.write("x" * (1 << 20))


def silent(log: Path) -> None:
    """Never reads, never answers."""
    time.sleep(600)


def mute(log: Path) -> None:
    """Closes its stdout and stays."""
    for _ in requests():
        os.close(1)
        time.sleep(600)


def grandchild(log: Path) -> None:
    """Dies, and leaves a process that holds its pipes open."""
    for _ in requests():
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
