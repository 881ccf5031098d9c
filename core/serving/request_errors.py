"""Errors of the endpoint: an HTTP status, and JSON in OpenAI's format for errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from core.errors import BitwrightError

_STATUS: Final = {"bad-input": 400, "out-of-memory": 507, "cancelled": 503}
"""HTTP status of error codes of `core.errors` that are not internal errors of the server."""


class RequestError(Exception):
    """An error sent to the client instead of an answer.

    Attributes:
        status: HTTP status.
        message: message for the user, as one sentence.
        code: error code for programs, as in OpenAI's API.
        param: name of the invalid field, or "".
        headers: additional HTTP headers.
    """

    def __init__(
        self, status: int, message: str, *, code: str = "", param: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """Return the JSON of the error in OpenAI's format."""
        kind = {401: "authentication_error", 429: "rate_limit_error"}.get(self.status, "")
        kind = kind or ("server_error" if self.status >= 500 else "invalid_request_error")
        return {
            "error": {"message": self.message, "type": kind, "param": self.param or None, "code": self.code or None}
        }


def bad_field(param: str, message: str) -> RequestError:
    """Return the error for an invalid value of a field."""
    return RequestError(400, message, code="invalid_value", param=param)


def request_error(error: BaseException, record: Callable[[BaseException], str]) -> RequestError:
    """Return the error sent to the client for an exception; an internal error is recorded and only its id is sent."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, BitwrightError):
        return RequestError(_STATUS.get(error.code, 500), str(error), code=error.code.replace("-", "_"))
    number = record(error)
    return RequestError(
        500, f"Internal server error. The server's log has the details under error {number}.", code="internal_error"
    )
