"""Access control of the endpoint: checks of the Host header, the Origin header and the token.

A web page can let its own host name resolve to this machine and so reach servers on loopback (DNS rebinding). The Host
header then still contains the page's name, so it is checked.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
import socket
from collections.abc import Iterable
from typing import Final

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from core.serving.request_errors import RequestError

OPEN_PATHS: Final = ("/health",)
"""Paths that do not require a token."""
_HERE: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_AUTHORITY: Final = re.compile(r"(?:\[([0-9a-f:.]{2,45})\]|([0-9a-z._-]{1,253}))(?::(\d{1,5}))?", re.ASCII)
"""A host and an optional port as in RFC 3986: no user, brackets only around an IPv6 address."""
_ORIGIN: Final = re.compile(r"https?://(.*)", re.DOTALL)
_HEAD_BYTES: Final = 16 << 10
"""Maximum size of all headers of a request; h11 applies this limit only to headers received in several pieces."""


def new_token() -> str:
    """Return a random token."""
    return f"bw-{secrets.token_urlsafe(24)}"


def is_loopback(host: str) -> bool:
    """Return whether `host` can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def allowed_names(host: str) -> frozenset[str]:
    """Return the accepted names in Host headers for an endpoint on `host`: if not loopback, also the machine's name."""
    if is_loopback(host):
        return _HERE | {host}
    own = socket.gethostname().lower()
    return _HERE | {host.lower(), own, f"{own}.local"}


class Guard:
    """ASGI middleware that passes allowed requests to the application and answers others with 401, 403 or 431.

    Args:
        app: the application.
        token: token that clients must send.
        names: names accepted in the Host header.
        any_address: also accept any IP address in the Host header, which no web page can forge.
    """

    def __init__(self, app: ASGIApp, token: str, names: Iterable[str], *, any_address: bool = False) -> None:
        self._app = app
        self._token = token.encode("utf-8")
        self._names = frozenset(names)
        self._any_address = any_address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request (ASGI)."""
        if scope["type"] != "http":
            return  # WebSockets are not supported
        refused = self._refusal(scope["path"], scope["headers"])
        if refused is None:
            await self._app(scope, receive, send)
            return
        await JSONResponse(refused.body(), refused.status, refused.headers)(scope, receive, send)

    def _refusal(self, path: str, headers: Iterable[tuple[bytes, bytes]]) -> RequestError | None:
        """Return the error for a request that is not allowed, or None. Duplicate headers count as missing."""
        found: dict[bytes, list[bytes]] = {}
        for name, value in headers:
            found.setdefault(name, []).append(value)
        if sum(len(name) + len(value) for name, values in found.items() for value in values) > _HEAD_BYTES:
            return RequestError(431, "The headers of a request must not exceed 16 KiB.", code="headers_too_large")
        if not self._knows(_only(found.get(b"host"))):
            return RequestError(403, "This host name is not allowed.", code="host_not_allowed")
        if b"origin" in found and not self._knows_page(_only(found[b"origin"])):
            return RequestError(403, "Requests from other origins are not allowed.", code="origin_not_allowed")
        if path in OPEN_PATHS:
            return None
        scheme, _, given = _only(found.get(b"authorization")).encode("latin-1").partition(b" ")
        if scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), self._token):
            return None
        message = "The token is invalid." if given else "A token is required: `Authorization: Bearer TOKEN`."
        return RequestError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})

    def _knows_page(self, origin: str) -> bool:
        """Return whether an origin is allowed: pages of this machine, and programs with their own URL scheme."""
        if origin == "null":
            return False  # a sandboxed page, or a local file
        found = _ORIGIN.fullmatch(origin)
        return self._knows(found[1]) if found else "://" in origin

    def _knows(self, authority: str) -> bool:
        found = _AUTHORITY.fullmatch(authority.strip(" \t").lower())
        if found is None or int(found[3] or 0) > 65535:
            return False
        name = found[1] or found[2]
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return found[1] is None and name in self._names
        if (found[1] is None) != (address.version == 4):
            return False
        return self._any_address or str(address) in self._names


def _only(values: list[bytes] | None) -> str:
    """Return the value of a header that occurs exactly once, else ""."""
    return values[0].decode("latin-1") if values is not None and len(values) == 1 else ""
