"""Tests of streams: immediate headers and comments, errors as a piece, and cancellation when the client leaves."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from core.serving import streams
from tests.core.serving.conftest import TOKEN, Running
from tests.core.serving.speaker import Speaker

CHAT = "/v1/chat/completions"


def send(server: Running, text: str, **more: object) -> socket.socket:
    """Open a connection and request a stream."""
    body = json.dumps({"messages": [{"role": "user", "content": text}], "stream": True, **more}).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    target = urlsplit(server.url)
    one = socket.create_connection((target.hostname, target.port), timeout=20)
    one.sendall(head.encode() + body)
    return one


def until(one: socket.socket, text: bytes) -> bytes:
    """Read from a connection up to a text."""
    found = b""
    while text not in found:
        data = one.recv(65536)
        assert data, found
        found += data
    return found


def until_waiting(server: Running, count: int) -> None:
    while server.waiting() != count:
        time.sleep(0.01)


def test_a_waiting_stream_sends_a_comment_immediately(
    start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "WAIT_SECONDS", 0.05)
    speaker = Speaker()
    server = start(speaker)
    speaker.going.clear()
    with send(server, "one") as first, send(server, "two") as second:
        assert until(second, b": waiting\n\n").startswith(b"HTTP/1.1 200")
        until(second, b": waiting\n\n")
        speaker.going.set()
        assert b"two " in until(second, b"[DONE]")
        assert b"one " in until(first, b"[DONE]")


def test_an_error_after_the_headers_is_sent_as_a_piece(start: Callable[..., Running]) -> None:
    speaker = Speaker(context=3)
    server = start(speaker)
    speaker.going.clear()
    with send(server, "one"), send(server, "far too long a text") as second:
        until(second, b": waiting\n\n")
        speaker.going.set()
        assert b'"context_length_exceeded"' in until(second, b"[DONE]")


def test_an_error_before_the_headers_has_a_status(start: Callable[..., Running]) -> None:
    with send(start(Speaker(context=3)), "far too long a text") as one:
        assert until(one, b"\r\n\r\n").startswith(b"HTTP/1.1 400")


def test_a_stream_whose_client_leaves_is_cancelled(start: Callable[..., Running]) -> None:
    speaker = Speaker()
    server = start(speaker)
    speaker.going.clear()
    with send(server, "one"):
        second = send(server, "two")
        until(second, b": waiting\n\n")
        until_waiting(server, 1)
        second.close()
        until_waiting(server, 0)
    assert len(speaker.asked) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_an_internal_error_has_an_id_that_is_in_the_log(
    start: Callable[..., Running], own_home: Path, stream: bool
) -> None:
    server = start(Speaker(error=RuntimeError("the reason")))
    status, body, _ = server.ask(
        "POST", CHAT, {"messages": [{"role": "user", "content": "a secret"}], "stream": stream}
    )
    number = body["error"]["message"].rpartition("error ")[2].rstrip(".")
    assert status == 500
    (line,) = [line for line in server.logs if line.startswith("error ")]
    log = own_home / "serve-errors.txt"
    assert f"error {number}: RuntimeError: the reason" in line
    assert str(log) in line
    text = log.read_text(encoding="utf-8")
    assert f"error {number}\nTraceback" in text
    assert "a secret" not in text
    assert log.stat().st_mode & 0o077 == 0


def test_a_log_that_cannot_be_written_is_reported(start: Callable[..., Running], own_home: Path) -> None:
    (own_home / "serve-errors.txt").mkdir(parents=True)
    server = start(Speaker(error=RuntimeError("the reason")))
    assert server.ask("POST", CHAT, {"messages": [{"role": "user", "content": "a"}]})[0] == 500
    assert any("the reason" in line and "cannot be written" in line for line in server.logs)
