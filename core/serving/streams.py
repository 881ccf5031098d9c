"""Streaming of an answer as server-sent events: one `data:` line per piece, and comments while waiting.

The headers are sent immediately and a comment every few seconds, so that neither the client nor a proxy gives up on a
request that waits in the queue.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from core.serving.faults import Record
from core.serving.request_errors import request_error
from core.serving.request_queue import CompletionEnd

Pieces = AsyncIterator[dict[str, Any] | CompletionEnd]
WAIT_SECONDS: Final = 3.0
"""Seconds between two comments."""


class Stream(Response):
    """A response that streams the pieces of an answer, followed by `[DONE]`.

    Args:
        pieces: JSON pieces of the answer, with its `CompletionEnd`.
        done: called once at the end, with the status and the end of the answer.
        record: writes an internal error to the log and returns its id.
    """

    def __init__(self, pieces: Pieces, done: Callable[[int, CompletionEnd | None], None], record: Record) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(media_type="text/event-stream", headers=headers)
        del self.headers["content-length"]
        self._pieces, self._done, self._record = pieces, done, record

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response (ASGI)."""
        ended: CompletionEnd | None = None
        status = 200

        async def line(text: str) -> None:
            await send({"type": "http.response.body", "body": f"{text}\n\n".encode(), "more_body": True})

        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            try:
                async for piece in _with_waits(self._pieces):
                    if isinstance(piece, CompletionEnd):
                        ended = piece
                    else:
                        await line(": waiting" if piece is None else f"data: {json.dumps(piece)}")
            except Exception as error:  # noqa: BLE001 - the status has been sent, so the error is sent as a piece
                refused = request_error(error, self._record)
                status = refused.status
                await line(f"data: {json.dumps(refused.body())}")
            await line("data: [DONE]")
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._done(status, ended)


async def _with_waits(pieces: Pieces) -> AsyncIterator[dict[str, Any] | CompletionEnd | None]:
    """Yield the pieces, and None at the start and whenever there was no piece for WAIT_SECONDS."""
    wait = 0.0
    while True:
        coming = asyncio.ensure_future(anext(pieces, _END))
        try:
            while not (await asyncio.wait({coming}, timeout=wait))[0]:
                yield None
                wait = WAIT_SECONDS
        finally:
            if not coming.done():
                coming.cancel()
        wait = WAIT_SECONDS
        piece = coming.result()
        if isinstance(piece, _End):
            return
        yield piece


class _End:
    """Marker of the end of the pieces."""


_END: Final = _End()
