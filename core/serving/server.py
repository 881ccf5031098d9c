"""The HTTP server of the endpoint: sockets, start and shutdown."""

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
_POLL_SECONDS: Final = 0.1
"""Seconds between two calls of `should_stop`."""
_SHUTDOWN_SECONDS: Final = 2
"""Seconds for connections to end by themselves at shutdown; answers end within one token."""
_SHORTEST_TOKEN: Final = 8
BACKLOG: Final = 128
"""Connections queued by the system until they are accepted."""
_TICKS: Final = 5
"""Ticks of uvicorn, 0.1 s each, between two checks of the deadlines of connections."""
ERRORS: Final = "serve-errors.txt"


@dataclass(frozen=True)
class Place:
    """Address, port and token of the endpoint.

    Attributes:
        host: `127.0.0.1`, `::1`, `localhost` for both, or the address of another interface.
        port: port; 0 selects a free one.
        token: token that clients must send; "" generates a new one.
    """

    host: str = HOST
    port: int = PORT
    token: str = ""

    def __post_init__(self) -> None:
        if type(self.port) is not int or not 0 <= self.port <= 65535:
            raise BadInput(
                f"Port {self.port!r} is out of range.", "Choose a port from 1024 to 65535, or 0 for a free one."
            )
        if self.token and not re.fullmatch(rf"[\x21-\x7e]{{{_SHORTEST_TOKEN},500}}", self.token):
            raise BadInput(
                "This token is not valid.",
                f"Use at least {_SHORTEST_TOKEN} ASCII characters without spaces, or no token to generate one.",
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
    """Answer requests until `should_stop` returns True.

    Emits a `Listening` and a `Log` after the start, and a `Log` for each request that was passed to the model.

    Args:
        talk: the model.
        label: name of the model, for display.
        place: address, port and token.
        max_waiting: maximum number of waiting requests.
        log: file for tracebacks of internal errors; by default `serve-errors.txt` in Bitwright's home folder.

    Raises:
        BadInput: the address cannot be used.
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
            warning = (
                f"The endpoint listens on {place.host}: anyone who can reach this machine and has the token can use it."
            )
            emit(Log("warning", warning))
        emit(Listening(url, token, name))
        emit(Log("info", f"listening on {url}"))
        asyncio.run(_serve(guard, sockets, queue, should_stop))
    finally:
        queue.close()
        for one in sockets:
            one.close()
    return ServerSummary(endpoint.requests, time.monotonic() - began)


def listen(host: str, port: int) -> list[socket.socket]:
    """Return listening sockets, one for each address of `host`, all with the same port.

    Raises:
        BadInput: the address does not exist on this machine, or the port is in use.
    """
    hosts = ["127.0.0.1", "::1"] if host == "localhost" else [host]
    found: list[socket.socket] = []
    try:
        for one in hosts:
            try:
                found.append(_bound(one, found[0].getsockname()[1] if found else port))
            except OSError:
                if not found or one != "::1":  # without IPv6, only the first address is used
                    raise
    except OSError as error:
        for bound in found:
            bound.close()
        reason = error.strerror or str(error)
        raise BadInput(
            f"Cannot listen on {host}, port {port}: {reason}.", "Choose another --port, or 0 for a free one."
        ) from error
    return found


def url_of(host: str, port: int) -> str:
    """Return the URL for programs on this machine."""
    name = {"0.0.0.0": HOST, "::": "::1", "localhost": HOST}.get(host, host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def served_name(label: str) -> str:
    """Return the name of a model in the API: its label, restricted to characters that need no quoting."""
    return re.sub(r"[^\w./-]+", "-", label, flags=re.ASCII).strip("-./") or "model"


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # on Windows this option would let two programs use the same port
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
    """A server that installs no signal handlers, since the process may run other calls, and checks deadlines."""

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
        proxy_headers=False, server_header=False, timeout_graceful_shutdown=_SHUTDOWN_SECONDS, backlog=BACKLOG,
    )  # fmt: skip
    server = _Server(settings)

    async def watch() -> None:
        while not should_stop():  # noqa: ASYNC110 - a callback, not an event
            await asyncio.sleep(_POLL_SECONDS)
        await asyncio.to_thread(queue.close)
        server.should_exit = True

    watching = asyncio.create_task(watch())
    try:
        await server.serve(sockets)
    finally:
        watching.cancel()
