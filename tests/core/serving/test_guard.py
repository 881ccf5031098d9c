"""Tests of the checks of hosts, origins and tokens."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from core.serving.guard import Guard, allowed_names

TOKEN = "a-token-for-tests"


def status(*headers: tuple[str, str], path: str = "/health", host: str = "127.0.0.1") -> int:
    """Return the status of a request to a guard for an endpoint on `host`; 200 if it is allowed."""
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})

    async def send(message: Any) -> None:
        sent.append(message)

    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    guard = Guard(app, TOKEN, allowed_names(host), any_address=host == "0.0.0.0")
    asyncio.run(guard({"type": "http", "path": path, "headers": raw}, None, send))  # type: ignore[arg-type]
    return int(sent[0]["status"])


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "LOCALHOST:1234", "127.0.0.1", "127.0.0.1:80", "[::1]", "[::1]:80", " localhost ",
        "[0:0:0:0:0:0:0:1]:8765",
    ],
)  # fmt: skip
def test_names_of_this_machine_are_allowed(host: str) -> None:
    assert status(("Host", host)) == 200


@pytest.mark.parametrize(
    "host",
    [
        "[::1]evil", "[::1]evil:80", "[::1", "::1", "::1]", "[localhost]", "[127.0.0.1]", "127.0.0.1:x", "127.0.0.1:",
        "127.0.0.1:80:80", "127.0.0.1:99999", "localhost:80@evil", "evil@localhost", "user:pass@localhost:80",
        "localhost.evil.com", "localhost.", "127.0.0.1.nip.io", "127.0.0.1,evil", "localhost, localhost",
        "localhost evil", "localhost/evil", "localhost#", "localhost?x", "localhost\\evil", "localhost%00", "",
        "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.\u00b2", "loc\u00e4lhost", "[::1%25lo]",
        "[::ffff:127.0.0.1]", "evil.example", "8.8.8.8",
    ],
)  # fmt: skip
def test_similar_and_malformed_names_are_refused(host: str) -> None:
    assert status(("Host", host)) == 403


def test_a_request_without_a_host_is_refused() -> None:
    assert status() == 403


def test_duplicate_host_headers_are_refused() -> None:
    assert status(("Host", "localhost"), ("Host", "localhost")) == 403


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("192.168.1.5:8000", 200), ("[fe80::1]:8000", 200), ("evil.example", 403), ("[::1]evil", 403),
        ("192.168.1.5.nip.io", 403), ("3232235781", 403), ("192.168.1.5@evil", 403),
    ],
)  # fmt: skip
def test_on_another_interface_any_ip_address_is_allowed(host: str, expected: int) -> None:
    assert status(("Host", host), host="0.0.0.0") == expected


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("http://localhost:3000", 200), ("https://127.0.0.1", 200), ("http://[::1]:1", 200),
        ("app://obsidian.md", 200), ("https://evil.example", 403), ("null", 403), ("", 403),
        ("http://localhost.evil.com", 403), ("http://localhost@evil.example", 403), ("http://[::1]evil", 403),
    ],
)  # fmt: skip
def test_pages_of_other_origins_are_refused(origin: str, expected: int) -> None:
    assert status(("Host", "localhost"), ("Origin", origin)) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], 401), ([("Authorization", f"Bearer {TOKEN}")], 200), ([("Authorization", f"bearer  {TOKEN} ")], 200),
        ([("Authorization", TOKEN)], 401), ([("Authorization", f"Bearer {TOKEN}x")], 401),
        ([("Authorization", f"Basic {TOKEN}")], 401), ([("Authorization", "Bearer \u00e4")], 401),
        ([("Authorization", f"Bearer {TOKEN}"), ("Authorization", "Bearer other")], 401),
    ],
)  # fmt: skip
def test_everything_but_health_needs_the_token(headers: list[tuple[str, str]], expected: int) -> None:
    assert status(("Host", "localhost"), *headers, path="/v1/models") == expected


def test_headers_that_are_too_large_are_refused() -> None:
    assert status(("Host", "localhost"), *[(f"x-{number}", "y" * 100) for number in range(200)]) == 431
