"""Limits on the connections to the endpoint: their number, and a deadline for each step of the client.

uvicorn only limits the time between two requests: an incomplete request, or a client that never reads its answer,
would keep a connection forever. Here each connection has a deadline for its next step, and if there are too many, a new
one replaces the one that has been idle longest.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from core.serving.request_errors import RequestError

HEAD_SECONDS: Final = 10.0
"""Time for the headers of a request, from the start of the connection or the end of the previous answer."""
BODY_SECONDS: Final = 60.0
"""Time for the rest of a request."""
READ_SECONDS: Final = 30.0
"""Time in which a client must read some data after its buffers are full."""
CLOSE_SECONDS: Final = 5.0
"""Time for closing a connection, after which it is aborted."""
MOST: Final = 256
"""Maximum number of connections: more than the 128 requests that may wait."""
_OWN_FILES: Final = 128
"""File descriptors reserved for the rest of the process."""


def most_connections(descriptors: int | None = None) -> int:
    """Return the maximum number of connections.

    Args:
        descriptors: limit of file descriptors of the process; None reads it from the system.
    """
    if descriptors is None:
        try:
            import resource
        except ImportError:  # there are no such limits on Windows
            return MOST
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if descriptors == resource.RLIM_INFINITY:
            return MOST
    return max(16, min(MOST, (descriptors - _OWN_FILES) // 2))


class Connection(H11Protocol):
    """A connection with a deadline for each step of the client.

    Args:
        most: maximum number of connections.
        now: clock, in seconds.
        args, more: arguments of uvicorn's protocol.
    """

    def __init__(self, *args: Any, most: int = MOST, now: Callable[[], float] = time.monotonic, **more: Any) -> None:
        super().__init__(*args, **more)
        self._most, self.now = most, now
        self._since = now()
        self._begun: Any = None
        self._stuck: float | None = None
        self._closing: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the connection, and close another one if there are too many."""
        super().connection_made(transport)  # type: ignore[arg-type]
        if len(self.connections) > self._most:
            self._make_room()

    def handle_events(self) -> None:
        """Process received data, and record the start of a request."""
        super().handle_events()
        if self.cycle is not self._begun:
            self._begun, self._since = self.cycle, self.now()

    def on_response_complete(self) -> None:
        """Record the end of an answer, from which the next request is awaited."""
        self._since = self.now()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Record that the client has stopped reading."""
        self._stuck = self.now()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Record that the client has resumed reading."""
        self._stuck = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuse invalid HTTP with the JSON of all errors."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()  # an answer has been started, so no error can be sent
            return
        body = json.dumps(RequestError(400, msg, code="invalid_http").body()).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
        head = h11.Response(status_code=400, headers=headers, reason="Bad Request")
        for event in (head, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    @property
    def is_answering(self) -> bool:
        """True if a request is being read or answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def close_if_late(self) -> None:
        """Close the connection if the client has missed its deadline."""
        now = self.now()
        if self.transport.is_closing():
            self._closing = now if self._closing is None else self._closing
            if now - self._closing > CLOSE_SECONDS:
                self.transport.abort()
        elif self._stuck is not None:
            if now - self._stuck > READ_SECONDS:
                self.transport.abort()
        elif not self.is_answering:
            if now - self._since > HEAD_SECONDS:
                self.transport.close()
        elif self.cycle.more_body and now - self._since > BODY_SECONDS:
            self.transport.close()

    def _make_room(self) -> None:
        """Close the connection that has been idle longest, from the address with the most idle connections.

        A client cannot block others by holding idle connections. If all others are being answered, the new connection
        is closed.
        """
        others = [one for one in self.connections if isinstance(one, Connection)]
        waiting = [one for one in others if not one.is_answering and not one.transport.is_closing()]
        counts = Counter(_address(one) for one in waiting)
        most = max(counts.values(), default=0)
        many = [one for one in waiting if counts[_address(one)] == most]
        min(many, key=lambda one: one._since, default=self).transport.abort()


def _address(connection: Connection) -> str:
    return connection.client[0] if connection.client else ""


def quiet_logs() -> None:
    """Disable uvicorn's log line for each invalid request, because a client can send thousands of them."""
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
