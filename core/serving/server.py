"""The endpoint on the network: sockets, the server, and its end. Knows nothing of what is asked."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import uvicorn

from core.control import ShouldStop
from core.errors import BadInput
from core.events import Emit, Listening, Log
from core.home import home
from core.serving.application import AnsweredRequest, Endpoint
from core.serving.connections import Connection, most_connections, quiet_logs
from core.serving.faults import recorder
from core.serving.guard import Guard, allowed_names, is_loopback, new_token
from core.serving.request_queue import MAX_WAITING, CompletionModel, RequestQueue
from core.serving.summary import ServerSummary

PORT: Final = 8765
HOST: Final = "127.0.0.1"
_LOOK: Final = 0.1
"""Seconds between looks at whether the server shall end."""
_PATIENCE: Final = 2
"""Seconds that connections have to end by themselves; answers end within a token."""
_SHORTEST_TOKEN: Final = 8
BACKLOG: Final = 128
"""Connections that the system holds until they are accepted; asyncio accepts so many at once, limit or not."""
_TICKS: Final = 5
"""Ticks of uvicorn's, a tenth of a second each, between two looks at connections that are late."""
ERRORS: Final = "serve-errors.txt"


@dataclass(frozen=True)
class Place:
    """Where and for whom to listen.

    Attributes:
        host: `127.0.0.1`, `::1`, `localhost` for both, or the address of another interface.
        port: 0 takes a free one.
        token: that callers have to know; "" makes a new one.
    """

    host: str = HOST
    port: int = PORT
    token: str = ""

    def __post_init__(self) -> None:
        if type(self.port) is not int or not 0 <= self.port <= 65535:
            raise BadInput(
                f"Port {self.port!r} is not possible.", "Choose one from 1024 to 65535, or 0 for a free one."
            )
        if self.token and not re.fullmatch(rf"[\x21-\x7e]{{{_SHORTEST_TOKEN},500}}", self.token):
            raise BadInput(
                "This token is not possible.",
                f"Use at least {_SHORTEST_TOKEN} letters, digits and signs without spaces, or none for a new one.",
            )


def serve(
    talk: CompletionModel,
    label: str,
    place: Place,
    emit: Emit,
    should_stop: ShouldStop,
    max_waiting: int = MAX_WAITING,
    log: Path | None = None,
) -> ServerSummary:
    """Answer requests until `should_stop`.

    Emits a `Listening` and a `Log` once it listens, and a `Log` for each request that came to the model. Tracebacks of
    failures go to `log`, by default `serve-errors.txt` in Bitwright's own folder.

    Raises:
        BadInput: the address cannot be listened on.
    """
    sockets = listen(place.host, place.port)
    token = place.token or new_token()
    name, began = served_name(label), time.monotonic()
    url = url_of(place.host, sockets[0].getsockname()[1])

    def tell(done: AnsweredRequest) -> None:
        figures = f"{done.prompt_tokens} + {done.tokens} tokens, {done.seconds:.1f} s"
        emit(Log("info", f"{done.path} {done.status}, {figures}"))

    record = recorder(log or home() / ERRORS, emit)
    queue = RequestQueue(talk, record, max_waiting)
    try:
        endpoint = Endpoint(queue, name, record, tell)
        guard = Guard(endpoint.application(), token, allowed_names(place.host), any_address=not is_loopback(place.host))
        if not is_loopback(place.host):
            words = f"The endpoint listens on {place.host}: whoever reaches this machine and has the token can use it."
            emit(Log("warning", words))
        emit(Listening(url, token, name))
        emit(Log("info", f"listening on {url}"))
        asyncio.run(_serve(guard, sockets, queue, should_stop))
    finally:
        queue.close()
        for one in sockets:
            one.close()
    return ServerSummary(endpoint.requests, time.monotonic() - began)


def listen(host: str, port: int) -> list[socket.socket]:
    """Sockets bound to a host, one for each of its addresses; all have the same port.

    Raises:
        BadInput: there is no such address here, or the port is taken.
    """
    hosts = ["127.0.0.1", "::1"] if host == "localhost" else [host]
    found: list[socket.socket] = []
    try:
        for one in hosts:
            try:
                found.append(_bound(one, found[0].getsockname()[1] if found else port))
            except OSError:
                if not found or one != "::1":  # a machine without IPv6 has only the first
                    raise
    except OSError as error:
        for bound in found:
            bound.close()
        reason = error.strerror or str(error)
        raise BadInput(
            f"{host}, port {port}, cannot be listened on: {reason}.", "Choose another --port, or 0 for a free one."
        ) from error
    return found


def url_of(host: str, port: int) -> str:
    """The address that a program on this machine uses."""
    name = {"0.0.0.0": HOST, "::": "::1", "localhost": HOST}.get(host, host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def served_name(label: str) -> str:
    """What a model is called by programs: its label in letters that need no quoting."""
    return re.sub(r"[^\w./-]+", "-", label, flags=re.ASCII).strip("-./") or "model"


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # on Windows this would let two programs have one port
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((host, port))
        made.listen(BACKLOG)
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made


class _Server(uvicorn.Server):
    """Leaves signals to whoever called: this may be one call of many in a process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS == 0:
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.close_if_late()
        return await super().on_tick(counter)


async def _serve(guard: Guard, sockets: list[socket.socket], queue: RequestQueue, should_stop: ShouldStop) -> None:
    quiet_logs()
    limited: Any = functools.partial(Connection, most=most_connections())
    settings = uvicorn.Config(
        guard, loop="asyncio", http=limited, ws="none", lifespan="off", log_config=None, access_log=False,
        proxy_headers=False, server_header=False, timeout_graceful_shutdown=_PATIENCE, backlog=BACKLOG,
    )  # fmt: skip
    server = _Server(settings)

    async def watch() -> None:
        while not should_stop():  # noqa: ASYNC110 - a question of the caller's, not an event
            await asyncio.sleep(_LOOK)
        await asyncio.to_thread(queue.close)
        server.should_exit = True

    watching = asyncio.create_task(watch())
    try:
        await server.serve(sockets)
    finally:
        watching.cancel()
