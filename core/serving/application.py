"""The HTTP routes of the endpoint: requests are passed to the queue, and answers are returned whole or streamed.

Implements the part of OpenAI's API that clients of chat models use.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from core.inference.generation.thinking import Part
from core.serving.bodies import BODY_BYTES, PICTURES_BYTES, read_body
from core.serving.completion_requests import (
    NO_PICTURES,
    CompletionRequest,
    chat_request,
    check_pictures,
    check_template,
    check_variables,
    text_request,
)
from core.serving.faults import Record
from core.serving.replies import Reply
from core.serving.request_errors import RequestError, request_error
from core.serving.request_queue import CompletionEnd, QueuedRequest, RequestQueue
from core.serving.streams import Stream

AT_ONCE: Final = 1.0
"""Seconds that a stream waits for the first part of its answer before it sends the headers."""


@dataclass(frozen=True)
class AnsweredRequest:
    """Log entry of an answered request, without its content."""

    path: str
    status: int
    prompt_tokens: int
    tokens: int
    seconds: float


@dataclass
class Endpoint:
    """State shared by the routes.

    Attributes:
        queue: queue of the model.
        name: name of the model in the API.
        record: writes an internal error to the log and returns its id.
        tell: called with each request that was passed to the model, after its answer.
        requests: number of those requests.
        created: time of the start, in Unix seconds.
    """

    queue: RequestQueue
    name: str
    record: Record
    tell: Callable[[AnsweredRequest], None] = lambda done: None
    requests: int = 0
    created: int = field(default_factory=lambda: int(time.time()))

    def application(self) -> ASGIApp:
        """Return the ASGI application; tokens are checked by `core.serving.guard`."""
        routes = [
            Route("/health", self.health, methods=["GET"]),
            Route("/v1/models", self.models, methods=["GET"]),
            Route("/v1/models/{name:path}", self.model, methods=["GET"]),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/completions", self.text, methods=["POST"]),
        ]
        handlers: dict[Any, Any] = {HTTPException: _http_error, RequestError: self._refused, Exception: self._refused}
        inner = Starlette(routes=routes, exception_handlers=handlers)

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            with contextlib.suppress(Exception):  # Starlette re-raises exceptions that have been handled above
                await inner(scope, receive, send)

        return application

    async def health(self, request: Request) -> Response:
        """Return the status and the number of waiting requests."""
        return JSONResponse({"status": "ok", "waiting": self.queue.waiting})

    async def models(self, request: Request) -> Response:
        """Return the list of models, which has one entry."""
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def model(self, request: Request) -> Response:
        """Return the model with the name in the path."""
        self._check(request.path_params["name"])
        return JSONResponse(self._model())

    async def chat(self, request: Request) -> Response:
        """Answer a conversation."""
        sees = "pictures" in self.queue.reads
        body = await read_body(request, PICTURES_BYTES if sees else BODY_BYTES)
        wanted = chat_request(body, self.queue.context)
        if wanted.has_pictures:
            if not sees:
                raise RequestError(400, self.queue.pictures_note or NO_PICTURES, code="no_pictures", param="messages")
            await asyncio.to_thread(check_pictures, wanted)
        check_template(self.queue.template)
        check_variables(wanted, self.queue.template, self.queue.thinks)
        return await self._answer(request, wanted)

    async def text(self, request: Request) -> Response:
        """Continue a text."""
        return await self._answer(request, text_request(await read_body(request)))

    def _model(self) -> dict[str, Any]:
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "bitwright",
            "context_length": self.queue.context,
        }

    def _check(self, name: str) -> None:
        if name not in ("", self.name):
            message = f"There is no model {name[:80]!r} here, only {self.name!r}."
            raise RequestError(404, message, code="model_not_found", param="model")

    async def _refused(self, request: Request, error: Exception) -> Response:
        refused = request_error(error, self.record)
        return JSONResponse(refused.body(), refused.status, refused.headers)

    async def _answer(self, request: Request, wanted: CompletionRequest) -> Response:
        self._check(wanted.model)
        began = time.monotonic()
        busy = self.queue.busy
        queued = self.queue.submit(wanted)
        watch = asyncio.create_task(_cancel_on_disconnect(request.receive, queued))
        reply, events = Reply(wanted, self.name), queued.events()

        def done(status: int, ended: CompletionEnd | None) -> None:
            watch.cancel()
            queued.cancel()
            self.requests += 1
            tokens = (ended.prompt_tokens, ended.tokens) if ended else (0, 0)
            self.tell(AnsweredRequest(request.url.path, status, *tokens, time.monotonic() - began))

        first = asyncio.ensure_future(anext(events))
        try:
            if wanted.stream:
                # Most errors occur immediately, and can still be sent as a status because no headers were sent yet.
                await asyncio.wait({first}, timeout=0 if busy else AT_ONCE)
                if not first.done() or first.exception() is None:
                    return Stream(_pieces(reply, first, events), done, self.record)
            parts, ended = await _gathered(await first, events)
        except Exception as error:
            refused = request_error(error, self.record)
            done(refused.status, None)
            raise refused from error
        except BaseException:  # the server ends
            first.cancel()
            done(500, None)
            raise
        done(200, ended)
        return JSONResponse(reply.whole(parts, ended))


async def _pieces(
    reply: Reply, first: asyncio.Future[Part | CompletionEnd], events: AsyncIterator[Part | CompletionEnd]
) -> AsyncIterator[dict[str, Any] | CompletionEnd]:
    """Yield the JSON pieces of a streamed answer, and its `CompletionEnd` before the last piece."""
    found = await first
    yield reply.first()
    while isinstance(found, Part):
        yield reply.piece(found)
        found = await anext(events)
    yield found
    yield reply.last(found)
    if reply.request.include_usage:
        yield reply.figures(found)


async def _gathered(
    first: Part | CompletionEnd, events: AsyncIterator[Part | CompletionEnd]
) -> tuple[list[Part], CompletionEnd]:
    parts, found = [], first
    while isinstance(found, Part):
        parts.append(found)
        found = await anext(events)
    return parts, found


async def _cancel_on_disconnect(receive: Receive, queued: QueuedRequest) -> None:
    """Cancel the request as soon as the client closes its connection; the body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        continue
    queued.cancel()


async def _http_error(request: Request, error: HTTPException) -> Response:
    if error.status_code == 404:
        refused = RequestError(404, f"There is no resource at {request.url.path[:80]}.", code="unknown_path")
    elif error.status_code == 405:
        refused = RequestError(405, f"{request.method} is not allowed at {request.url.path[:80]}.", code="wrong_method")
    else:
        refused = RequestError(error.status_code, str(error.detail))
    return JSONResponse(refused.body(), refused.status, {**refused.headers, **(error.headers or {})})
