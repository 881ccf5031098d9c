"""Who may ask: the name that the endpoint was called by, the page that asks, and the token. Knows nothing of models.

A page in a browser can make its own name point to this machine and so reach what listens on loopback (DNS rebinding);
the Host header then still has the page's name, which is why it is looked at.
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
"""What may be asked without a token."""
_HERE: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_AUTHORITY: Final = re.compile(r"(?:\[([0-9a-f:.]{2,45})\]|([0-9a-z._-]{1,253}))(?::(\d{1,5}))?", re.ASCII)
"""A host and a port as RFC 3986 writes them: no user, no brackets around anything but an address, digits for a port."""
_ORIGIN: Final = re.compile(r"https?://(.*)", re.DOTALL)
_HEAD_BYTES: Final = 16 << 10
"""All headers of a request together; h11 has this limit for those that come in several pieces only."""


def new_token() -> str:
    """A token that nobody can guess."""
    return f"bw-{secrets.token_urlsafe(24)}"


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine reach an interface."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def allowed_names(host: str) -> frozenset[str]:
    """The names that a Host header may have for an endpoint on `host`: off loopback this machine's, too."""
    if is_loopback(host):
        return _HERE | {host}
    own = socket.gethostname().lower()
    return _HERE | {host.lower(), own, f"{own}.local"}


class Guard:
    """Lets a request pass to the application, or answers 403 or 401 itself.

    Args:
        names: that a Host header may have.
        any_address: it may also have any address in figures, over which no page has power.
    """

    def __init__(self, app: ASGIApp, token: str, names: Iterable[str], *, any_address: bool = False) -> None:
        self._app = app
        self._token = token.encode("utf-8")
        self._names = frozenset(names)
        self._any_address = any_address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The interface that servers call."""
        if scope["type"] != "http":
            return  # there are no sockets of the web here
        refused = self._refusal(scope["path"], scope["headers"])
        if refused is None:
            await self._app(scope, receive, send)
            return
        await JSONResponse(refused.body(), refused.status, refused.headers)(scope, receive, send)

    def _refusal(self, path: str, headers: Iterable[tuple[bytes, bytes]]) -> RequestError | None:
        """Why a request may not pass, or None. Headers that stand there twice are worth nothing."""
        found: dict[bytes, list[bytes]] = {}
        for name, value in headers:
            found.setdefault(name, []).append(value)
        if sum(len(name) + len(value) for name, values in found.items() for value in values) > _HEAD_BYTES:
            return RequestError(431, "The headers of a request have 16 KiB at most.", code="headers_too_large")
        if not self._knows(_only(found.get(b"host"))):
            return RequestError(403, "This server does not answer under that name.", code="host_not_allowed")
        if b"origin" in found and not self._knows_page(_only(found[b"origin"])):
            return RequestError(403, "This server does not answer pages of other origins.", code="origin_not_allowed")
        if path in OPEN_PATHS:
            return None
        scheme, _, given = _only(found.get(b"authorization")).encode("latin-1").partition(b" ")
        if scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), self._token):
            return None
        message = "The token is wrong." if given else "A token is needed: `Authorization: Bearer TOKEN`."
        return RequestError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})

    def _knows_page(self, origin: str) -> bool:
        """Whether a page may ask: those of this machine, and programs that call themselves by a scheme of their own."""
        if origin == "null":
            return False  # a page in a sandbox, or a file
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
    """The value of a header that stands there once; "" without it, or with several."""
    return values[0].decode("latin-1") if values is not None and len(values) == 1 else ""
