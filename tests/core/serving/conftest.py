"""Fixtures that run the real endpoint on a free port, with a scripted model."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest

from core.events import Event, Listening, Log
from core.serving.server import Place, serve
from core.serving.summary import ServerSummary
from tests.core.serving.speaker import Speaker

TOKEN = "a-token-for-tests"


@dataclass
class Running:
    """A running server and the events it emitted."""

    speaker: Speaker
    url: str = ""
    model: str = ""
    events: list[Event] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    result: ServerSummary | None = None
    thread: threading.Thread | None = None

    def end(self) -> None:
        """Stop the server and wait for its end."""
        self.stop.set()
        self.speaker.going.set()
        assert self.thread is not None
        self.thread.join(20)
        assert not self.thread.is_alive()

    def waiting(self) -> int:
        """Return the number of waiting requests."""
        return int(self.ask("GET", "/health")[1]["waiting"])

    @property
    def logs(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Log)]

    def ask(
        self, method: str, path: str, body: Any = None, *, token: str | None = TOKEN, **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        """Send one request on a new connection (a body of bytes unchanged) and return status, JSON and headers."""
        place = urlsplit(self.url)
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=20)
        data = body if isinstance(body, bytes | type(None)) else json.dumps(body).encode()
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        connection.request(method, path, data, sent)
        reply = connection.getresponse()
        text = reply.read()
        connection.close()
        return reply.status, json.loads(text) if text else None, {k.lower(): v for k, v in reply.getheaders()}


@contextmanager
def running(
    speaker: Speaker, label: str = "tiny", host: str = "127.0.0.1", max_waiting: int = 128
) -> Iterator[Running]:
    """Run a server in a thread, and stop it at the end of the block."""
    found, listening = Running(speaker), threading.Event()

    def emit(event: Event) -> None:
        found.events.append(event)
        if isinstance(event, Listening):
            found.url, found.model = event.url, event.model
            listening.set()

    def work() -> None:
        found.result = serve(speaker, label, Place(host, 0, TOKEN), emit, found.stop.is_set, max_waiting)

    found.thread = threading.Thread(target=work)
    found.thread.start()
    try:
        assert listening.wait(20)
        yield found
    finally:
        found.end()


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    """Return a function that starts a server, which is stopped at the end of the test."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(running(*args, **options))


@pytest.fixture
def server(start: Callable[..., Running]) -> Running:
    return start(Speaker())
