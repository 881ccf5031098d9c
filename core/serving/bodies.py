"""Strict parsing of request bodies: ambiguous or invalid JSON is refused.

A JSON text may contain half a surrogate pair (if a client split a text within an emoji), duplicate keys, or NaN.
Python's parser accepts all of them, and later steps fail.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterator
from typing import Any, Final

from starlette.requests import ClientDisconnect, Request

from core.serving.request_errors import RequestError, bad_field

BODY_BYTES: Final = 8 << 20
"""Maximum size of a request; a longer one is not read to its end."""
PICTURES_BYTES: Final = 64 << 20
"""Maximum size of a request to a model that reads pictures."""
_DEEPEST: Final = 64
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


async def read_body(request: Request, limit: int = BODY_BYTES) -> dict[str, Any]:
    """Return the JSON object in the body of a request of at most `limit` bytes.

    Raises:
        RequestError: 413 if the body is too large, 415 if it is compressed, 400 if it is not a valid JSON object.
    """
    too_large = RequestError(413, f"A request must not exceed {limit >> 20} MiB.", code="request_too_large")
    if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise RequestError(
            415, "Compressed requests are not supported.", code="unsupported_encoding", param="Content-Encoding"
        )
    length = request.headers.get("content-length", "")
    if re.fullmatch(r"[0-9]{1,18}", length) and int(length) > limit:
        raise too_large
    found = bytearray()
    with contextlib.suppress(ClientDisconnect):
        async for piece in request.stream():
            found += piece
            if len(found) > limit:
                raise too_large
    return parsed(bytes(found))


def parsed(data: bytes) -> dict[str, Any]:
    """Return the JSON object in `data`.

    Raises:
        RequestError: 400, with the field's name if the error is in a field.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _invalid(f"it is not UTF-8 (byte {error.start})") from error
    try:
        value = json.loads(
            text, parse_constant=_no_number, parse_float=_finite, parse_int=_whole, object_pairs_hook=_single
        )
    except json.JSONDecodeError as error:
        raise _invalid(str(error)) from error
    except RecursionError as error:
        raise _invalid("it is nested too deeply") from error
    if not isinstance(value, dict):
        raise _invalid("it must be an object")
    for path, one in _walked(value):
        if isinstance(one, str) and _SURROGATE.search(one):
            raise bad_field(path, f"{path or 'A name'} contains an unpaired surrogate.")
    return value


def _walked(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield all scalar values and all names inside a JSON value, each with its path."""
    left = [("", value, 0)]
    while left:
        path, one, depth = left.pop()
        if depth > _DEEPEST:
            raise _invalid("it is nested too deeply")
        if isinstance(one, dict):
            for name, inner in one.items():
                yield path, name
                left.append((f"{path}.{name[:80]}" if path else name[:80], inner, depth + 1))
        elif isinstance(one, list):
            left += [(f"{path}[{number}]", inner, depth + 1) for number, inner in enumerate(one)]
        else:
            yield path, one


def _single(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        name = next(name for name in names if names.count(name) > 1)
        raise _invalid(f"it contains {name[:80]!r} twice")
    return found


def _no_number(text: str) -> Any:
    raise _invalid(f"{text} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _invalid("a number in it is too large")
    return value


def _whole(text: str) -> int:
    if len(text) > 40:
        raise _invalid("a number in it is too large")
    return int(text)


def _invalid(reason: str) -> RequestError:
    return RequestError(400, f"The request is not valid JSON: {reason}.", code="invalid_json")
