"""Tests of the limits on connections: incomplete requests, slow bodies, clients that do not read, and their number."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import h11
import pytest
import uvicorn
from uvicorn.server import ServerState

from core.serving import connections
from core.serving.connections import Connection, most_connections
from tests.core.serving.conftest import Running

HALF = b"GET /health HTTP/1.1\r\nX: "
HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"


class Wire(asyncio.Transport):
    """A transport without a socket that records what is written."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        super().__init__({"peername": (address, 1), "sockname": ("127.0.0.1", 2)})
        self.written, self.closed, self.aborted = b"", False, False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Place:
    """Connections to a server with a settable clock; its application reads a body and then waits for `answer`."""

    def __init__(self, most: int = 3) -> None:
        self.time, self.most, self.answer = 0.0, most, asyncio.Event()
        self._config = uvicorn.Config(self._application, interface="asgi3", log_config=None, lifespan="off")
        self._state = ServerState()

    async def _application(self, scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            continue
        await self.answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    def connect(self, address: str = "127.0.0.1") -> tuple[Connection, Wire]:
        wire = Wire(address)
        made = Connection(self._config, self._state, {}, most=self.most, now=lambda: self.time)
        made.connection_made(wire)
        return made, wire


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("sent", [b"", HALF])
def test_incomplete_headers_are_closed_after_the_deadline(sent: bytes) -> None:
    async def work() -> list[bool]:
        place = Place()
        one, wire = place.connect()
        if sent:
            one.data_received(sent)
        found = []
        for place.time in (connections.HEAD_SECONDS - 1, connections.HEAD_SECONDS + 1):
            one.close_if_late()
            found.append(wire.closed)
        return found

    assert asyncio.run(work()) == [False, True]


def test_slow_headers_are_closed_after_the_deadline() -> None:
    async def work() -> bool:
        place = Place()
        one, wire = place.connect()
        one.data_received(HALF)
        for place.time in range(int(connections.HEAD_SECONDS) + 2):
            one.data_received(b"a")
            one.close_if_late()
        return wire.closed

    assert asyncio.run(work())


def test_an_incomplete_second_request_is_closed_after_the_deadline() -> None:
    async def work() -> tuple[bytes, bool]:
        place = Place()
        place.answer.set()
        one, wire = place.connect()
        one.data_received(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await settle()
        one.data_received(HALF)
        place.time = connections.HEAD_SECONDS + 1
        one.close_if_late()
        return wire.written, wire.closed

    written, closed = asyncio.run(work())
    assert written.startswith(b"HTTP/1.1 200")
    assert closed


def test_a_body_has_a_longer_deadline() -> None:
    async def work() -> list[bool]:
        place = Place()
        one, wire = place.connect()
        one.data_received(HEAD)
        found = []
        for place.time in (connections.BODY_SECONDS - 1, connections.BODY_SECONDS + 1):
            one.data_received(b"a")
            one.close_if_late()
            found.append(wire.closed)
        return found

    assert asyncio.run(work()) == [False, True]


def test_an_answer_has_no_deadline() -> None:
    async def work() -> bool:
        place = Place()
        one, wire = place.connect()
        one.data_received(HEAD + b"123456789")
        place.time = 1e6
        one.close_if_late()
        return wire.closed

    assert not asyncio.run(work())


def test_a_client_that_does_not_read_is_closed() -> None:
    async def work() -> list[bool]:
        place = Place()
        one, wire = place.connect()
        one.data_received(HEAD + b"123456789")
        one.pause_writing()
        found = []
        for place.time in (connections.READ_SECONDS - 1, connections.READ_SECONDS + 1):
            one.close_if_late()
            found.append(wire.aborted)
        one.resume_writing()
        return found

    assert asyncio.run(work()) == [False, True]


def test_a_connection_that_does_not_close_is_aborted() -> None:
    async def work() -> bool:
        place = Place()
        one, wire = place.connect()
        wire.close()
        for place.time in (1, 2 + connections.CLOSE_SECONDS):
            one.close_if_late()
        return wire.aborted

    assert asyncio.run(work())


def test_a_new_connection_replaces_the_one_idle_longest() -> None:
    async def work() -> list[bool]:
        place = Place(most=3)
        wires = []
        for place.time in range(5):
            one, wire = place.connect()
            wires.append(wire)
            if place.time == 0:
                one.data_received(HEAD + b"123456789")  # it is being answered
        return [wire.aborted for wire in wires]

    assert asyncio.run(work()) == [False, True, True, False, False]


def test_the_address_with_most_idle_connections_loses_one() -> None:
    async def work() -> list[bool]:
        place = Place(most=3)
        wires = []
        for place.time, address in enumerate(["10.0.0.1", "10.0.0.2", "10.0.0.2", "10.0.0.3"]):
            wires.append(place.connect(address)[1])
        return [wire.aborted for wire in wires]

    assert asyncio.run(work()) == [False, True, False, False]


def test_a_new_connection_is_closed_if_all_others_are_active() -> None:
    async def work() -> list[bool]:
        place = Place(most=1)
        first, wire = place.connect()
        first.data_received(HEAD + b"123456789")
        return [wire.aborted, place.connect()[1].aborted]

    assert asyncio.run(work()) == [False, True]


@pytest.mark.parametrize(
    "sent",
    [b"\x16\x03\x01\x02\x00\x01\x00", b"hello\r\n\r\n", b"GET / HTTP/x\r\n\r\n", b"GET /\r\n\r\n", b"A" * 20_000],
)
def test_invalid_http_is_refused_in_json(sent: bytes) -> None:
    async def work() -> Wire:
        one, wire = Place().connect()
        one.data_received(sent)
        return wire

    wire = asyncio.run(work())
    assert wire.written.startswith(b"HTTP/1.1 400")
    assert b'"invalid_http"' in wire.written
    assert wire.closed


def test_invalid_http_during_an_answer_aborts_the_connection() -> None:
    async def work() -> tuple[Any, bool]:
        one, wire = Place().connect()
        one.data_received(b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        one.conn.send(h11.Response(status_code=200, headers=[]))
        one.data_received(b"xyz\r\n")
        return wire.written, wire.aborted

    assert asyncio.run(work()) == (b"", True)


@pytest.mark.parametrize(("descriptors", "expected"), [(1024, 256), (256, 64), (100, 16), (1_000_000, 256)])
def test_file_descriptors_are_reserved(descriptors: int, expected: int) -> None:
    assert most_connections(descriptors) == expected


@contextmanager
def held(place: Running, count: int) -> Iterator[list[socket.socket]]:
    """Open connections with incomplete requests to a real server."""
    target = urlsplit(place.url)
    found = [socket.create_connection((target.hostname, target.port), timeout=20) for _ in range(count)]
    for one in found:
        one.sendall(HALF)
    try:
        yield found
    finally:
        for one in found:
            one.close()


def test_requests_are_answered_despite_many_incomplete_ones(server: Running) -> None:
    with held(server, connections.MOST + 40):
        assert server.ask("GET", "/health")[0] == 200
