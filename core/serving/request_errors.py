"""How the endpoint says no: an HTTP status and OpenAI's JSON for errors. Knows nothing of models or of the server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from core.errors import BitwrightError

_STATUS: Final = {"bad-input": 400, "out-of-memory": 507, "cancelled": 503}
"""Codes of `core.errors` that do not mean a fault of the server."""


class RequestError(Exception):
    """A request that is not answered.

    Attributes:
        status: of HTTP.
        message: one sentence for the caller; param: the field of the request that it is about, or "".
        code: for programs, as OpenAI names it.
    """

    def __init__(
        self, status: int, message: str, *, code: str = "", param: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """What clients of OpenAI's interface read."""
        kind = {401: "authentication_error", 429: "rate_limit_error"}.get(self.status, "")
        kind = kind or ("server_error" if self.status >= 500 else "invalid_request_error")
        return {
            "error": {"message": self.message, "type": kind, "param": self.param or None, "code": self.code or None}
        }


def bad_field(param: str, message: str) -> RequestError:
    """A field of the request that cannot be what it is."""
    return RequestError(400, message, code="invalid_value", param=param)


def request_error(error: BaseException, record: Callable[[BaseException], str]) -> RequestError:
    """What a failure of the model is for the caller; a fault of ours is recorded, and told by its id alone."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, BitwrightError):
        return RequestError(_STATUS.get(error.code, 500), str(error), code=error.code.replace("-", "_"))
    number = record(error)
    return RequestError(500, f"The server failed; its log tells how under error {number}.", code="internal_error")
