"""Tests of invalid requests over plain HTTP: status, JSON and field name of the error."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from core.errors import BadInput
from core.events import Listening, Log
from core.serving.bodies import BODY_BYTES
from core.serving.server import Place, listen, served_name, url_of
from tests.core.serving.conftest import Running, running
from tests.core.serving.speaker import Speaker

CHAT = "/v1/chat/completions"
GOOD: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """A server shared by all tests that do not change it."""
    with running(Speaker()) as found:
        yield found


def test_a_model_without_a_chat_template_only_continues_text() -> None:
    with running(Speaker(template="")) as found:
        status, body, _ = found.ask("POST", CHAT, GOOD)
        assert (status, body["error"]["code"]) == (400, "no_chat_template")
        assert "/v1/completions" in body["error"]["message"]
        assert found.ask("POST", "/v1/completions", {"prompt": "hi"})[0] == 200


def test_health_needs_no_token(server: Running) -> None:
    assert server.ask("GET", "/health", token=None)[:2] == (200, {"status": "ok", "waiting": 0})


def test_everything_else_needs_one(server: Running) -> None:
    status, body, headers = server.ask("GET", "/v1/models", token=None)
    assert status == 401
    assert body["error"]["code"] == "invalid_api_key"
    assert headers["www-authenticate"] == "Bearer"


def test_an_unknown_path_without_a_token_needs_a_token(server: Running) -> None:
    assert server.ask("GET", "/nothing", token=None)[0] == 401


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "8.8.8.8"])
def test_an_unknown_host_name_is_refused(server: Running, host: str) -> None:
    status, body, _ = server.ask("GET", "/health", Host=host)
    assert status == 403
    assert body["error"]["code"] == "host_not_allowed"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1234", "127.0.0.1:80", "[::1]:80", "[::1]"])
def test_names_of_loopback_are_allowed(server: Running, host: str) -> None:
    assert server.ask("GET", "/health", Host=host)[0] == 200


def test_a_page_of_another_origin_is_refused(server: Running) -> None:
    _, _, headers = server.ask("GET", "/v1/models", Origin="https://evil.example")
    assert not [name for name in headers if name.startswith("access-control")]


def test_an_unknown_path_is_not_found(server: Running) -> None:
    status, body, _ = server.ask("GET", "/v1/embeddings")
    assert status == 404
    assert body["error"]["code"] == "unknown_path"


def test_a_wrong_method_is_refused_with_the_allowed_one(server: Running) -> None:
    status, body, headers = server.ask("GET", CHAT)
    assert status == 405
    assert body["error"]["code"] == "wrong_method"
    assert "POST" in headers["allow"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b'{"a":' * 100_000, b"null"])
def test_a_body_that_is_not_a_json_object_is_refused(server: Running, body: bytes) -> None:
    status, answer, _ = server.ask("POST", CHAT, body)
    assert status == 400
    assert answer["error"]["code"] == "invalid_json"


def test_a_request_that_is_too_large_is_not_read(server: Running) -> None:
    place = urlsplit(server.url)
    with socket.create_connection((place.hostname, place.port), timeout=20) as connection:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer a-token-for-tests\r\n"
        connection.sendall(f"{head}Content-Length: {BODY_BYTES + 1}\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_a_large_request_without_a_length_is_refused(server: Running) -> None:
    place = urlsplit(server.url)
    with socket.create_connection((place.hostname, place.port), timeout=20) as connection:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer a-token-for-tests\r\n"
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        piece = b"%x\r\n" % (1 << 20) + b" " * (1 << 20) + b"\r\n"
        try:
            for _ in range((BODY_BYTES >> 20) + 1):
                connection.sendall(piece)
        except OSError:
            pass  # it has hung up already
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_the_log_has_the_numbers_of_tokens_but_no_content(server: Running) -> None:
    server.ask("POST", CHAT, {**GOOD, "messages": [{"role": "user", "content": "secret words"}]})
    assert server.logs[-1].startswith(f"{CHAT} 200, 2 + 2 tokens")
    assert "secret" not in "".join(server.logs)


def test_requests_are_counted(start: Callable[..., Running]) -> None:
    server = start(Speaker())
    server.ask("POST", CHAT, GOOD)
    server.ask("POST", CHAT, GOOD)
    server.end()
    assert server.result is not None
    assert server.result.requests == 2


def test_the_address_is_emitted(server: Running) -> None:
    (found,) = [event for event in server.events if isinstance(event, Listening)]
    assert found.url.startswith("http://127.0.0.1:")
    assert server.logs[0] == f"listening on {found.url}"


def test_loopback_gives_no_warning(server: Running) -> None:
    assert [event for event in server.events if isinstance(event, Log) and event.level == "warning"] == []


def test_another_interface_gives_a_warning(start: Callable[..., Running]) -> None:
    server = start(Speaker(), host="0.0.0.0")
    assert any("anyone who can reach this machine" in line for line in server.logs)


@pytest.mark.parametrize(("host", "status"), [("192.168.1.5:8000", 200), ("evil.example", 403)])
def test_another_interface_accepts_ip_addresses(start: Callable[..., Running], host: str, status: int) -> None:
    assert start(Speaker(), host="0.0.0.0").ask("GET", "/health", Host=host)[0] == status


def test_a_port_in_use_is_refused(server: Running) -> None:
    with pytest.raises(BadInput, match="Cannot listen on"):
        listen("127.0.0.1", urlsplit(server.url).port or 0)


@pytest.mark.parametrize("port", [-1, 65536, "80"])
def test_an_invalid_port_is_refused(port: Any) -> None:
    with pytest.raises(BadInput):
        Place(port=port)


@pytest.mark.parametrize("token", ["short", "with space in it", "ümläutöken", "x\r\ny: zzzzzz"])
def test_an_invalid_token_is_refused(token: str) -> None:
    with pytest.raises(BadInput):
        Place(token=token)


def test_localhost_listens_on_both_addresses() -> None:
    found = listen("localhost", 0)
    ports = {one.getsockname()[1] for one in found}
    for one in found:
        one.close()
    assert len(ports) == 1


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", "http://127.0.0.1:8"), ("::1", "http://[::1]:8"), ("0.0.0.0", "http://127.0.0.1:8")],
)
def test_the_url_can_be_opened(host: str, url: str) -> None:
    assert url_of(host, 8) == url


@pytest.mark.parametrize(
    ("label", "name"), [("SmolLM2 (demo)", "SmolLM2-demo"), ("a/b.gguf", "a/b.gguf"), ("()", "model")]
)
def test_the_served_name_needs_no_quoting(label: str, name: str) -> None:
    assert served_name(label) == name
