"""Limits of the connections to the endpoint: how many there are, and how long each may take over its part.

uvicorn limits the time of a connection that is idle between two requests and nothing else: half a request is kept for
ever, and so is a client that never reads its answer. Each connection here has a deadline for what it has to do next,
and where there are too many, a new one takes the place of the one that has waited longest without a request. Knows
sockets and HTTP; nothing of what is asked.
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
"""Time for the headers of a request, from the connection's beginning or the end of the answer before."""
BODY_SECONDS: Final = 60.0
"""Time for the rest of a request."""
READ_SECONDS: Final = 30.0
"""Time in which a client has to read something of an answer that has filled its buffers."""
CLOSE_SECONDS: Final = 5.0
"""Time in which a connection that is being closed has to be gone."""
MOST: Final = 256
"""Connections at once: more than the 128 requests that may wait."""
_OWN_FILES: Final = 128
"""File descriptors that are left to the rest of the process."""


def most_connections(descriptors: int | None = None) -> int:
    """Return how many connections there may be at once.

    Args:
        descriptors: file descriptors that the process may have; None asks the system.
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
    """One connection, with a deadline for each thing that the other side has to do.

    Args:
        most: connections at once; now: the clock; the rest is uvicorn's.
    """

    def __init__(self, *args: Any, most: int = MOST, now: Callable[[], float] = time.monotonic, **more: Any) -> None:
        super().__init__(*args, **more)
        self._most, self.now = most, now
        self._since = now()
        self._begun: Any = None
        self._stuck: float | None = None
        self._closing: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin a connection, in place of another where there are too many."""
        super().connection_made(transport)  # type: ignore[arg-type]
        if len(self.connections) > self._most:
            self._make_room()

    def handle_events(self) -> None:
        """Take what has come; notes when a request begins."""
        super().handle_events()
        if self.cycle is not self._begun:
            self._begun, self._since = self.cycle, self.now()

    def on_response_complete(self) -> None:
        """Note when an answer has ended: from here on the next request is waited for."""
        self._since = self.now()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Note that the other side does not read."""
        self._stuck = self.now()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Note that the other side reads again."""
        self._stuck = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, in the JSON of every other refusal."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()  # in the middle of an answer nothing can be said any more
            return
        body = json.dumps(RequestError(400, msg, code="invalid_http").body()).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
        head = h11.Response(status_code=400, headers=headers, reason="Bad Request")
        for event in (head, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    @property
    def is_answering(self) -> bool:
        """Whether a request is read or answered; those without a token are refused before they are read."""
        return self.cycle is not None and not self.cycle.response_complete

    def close_if_late(self) -> None:
        """Close the connection if the other side has not done its part in time."""
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
        """Close the connection that has waited longest, of the address that has most of them.

        Nobody is kept out by others who only hold connections; where all others are being answered, this new one goes.
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
    """Keep uvicorn from writing a line for each broken request: anybody can make thousands of them."""
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
