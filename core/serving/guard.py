"""Who may ask: the name that the endpoint was called by, and the token. Knows nothing of models.

A page in a browser can make its own name point to this machine and so reach what listens on loopback (DNS rebinding);
the Host header then still has the page's name, which is why it is looked at.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
from collections.abc import Iterable
from typing import Final

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from core.serving.refusals import Refused

OPEN_PATHS: Final = ("/health",)
"""What may be asked without a token."""
_HERE: Final = frozenset({"localhost", "127.0.0.1", "::1"})


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
        headers = {name: value for name, value in scope["headers"] if name in (b"host", b"authorization")}
        refused = self._refusal(scope["path"], headers.get(b"host", b""), headers.get(b"authorization", b""))
        if refused is None:
            await self._app(scope, receive, send)
            return
        await JSONResponse(refused.body(), refused.status, refused.headers)(scope, receive, send)

    def _refusal(self, path: str, host: bytes, authorization: bytes) -> Refused | None:
        if not self._knows(host.decode("latin-1")):
            return Refused(403, "This server does not answer under that name.", code="host_not_allowed")
        if path in OPEN_PATHS:
            return None
        scheme, _, given = authorization.partition(b" ")
        if scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), self._token):
            return None
        message = "The token is wrong." if given else "A token is needed: `Authorization: Bearer TOKEN`."
        return Refused(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})

    def _knows(self, host: str) -> bool:
        name = host.strip().lower()
        if name.startswith("["):
            name = name[1:].partition("]")[0]
        elif name.count(":") == 1:
            name = name.partition(":")[0]
        if name in self._names:
            return True
        if not self._any_address:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True
