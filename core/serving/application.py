"""The endpoint's paths: what is asked over HTTP goes to the desk, and its answers go back, whole or piece by piece.

Speaks the part of OpenAI's interface that clients of chat models use. Knows nothing of sockets or of the model.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from core.inference.generation.thinking import Part
from core.serving.desk import Desk, Ended, Ticket
from core.serving.questions import Question, chat_question, text_question
from core.serving.refusals import Refused, refused_by
from core.serving.replies import Reply

BODY_BYTES: Final = 8 << 20
"""A longer request is not read to its end."""


@dataclass(frozen=True)
class Done:
    """One request that was answered, for the log: no word of what was said."""

    path: str
    status: int
    prompt_tokens: int
    tokens: int
    seconds: float


@dataclass
class Endpoint:
    """What the paths share.

    Attributes:
        desk: where the model is; name: that the model is called by.
        tell: gets every request that came to the model, once it is answered.
        requests: how many of those there were.
    """

    desk: Desk
    name: str
    tell: Callable[[Done], None] = lambda done: None
    requests: int = 0
    created: int = field(default_factory=lambda: int(time.time()))

    def application(self) -> Starlette:
        """The application that a server calls; it asks nobody for a token (`core.serving.guard`)."""
        routes = [
            Route("/health", self.health, methods=["GET"]),
            Route("/v1/models", self.models, methods=["GET"]),
            Route("/v1/models/{name:path}", self.model, methods=["GET"]),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/completions", self.text, methods=["POST"]),
        ]
        handlers: dict[Any, Any] = {HTTPException: _http_error, Refused: _refused, Exception: _refused}
        return Starlette(routes=routes, exception_handlers=handlers)

    async def health(self, request: Request) -> Response:
        """Whether the endpoint is there, and how many requests wait."""
        return JSONResponse({"status": "ok", "waiting": self.desk.waiting})

    async def models(self, request: Request) -> Response:
        """The one model."""
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def model(self, request: Request) -> Response:
        """The one model, by its name."""
        self._check(request.path_params["name"])
        return JSONResponse(self._model())

    async def chat(self, request: Request) -> Response:
        """A conversation is answered."""
        return await self._answer(request, chat_question(await _body(request), self.desk.context))

    async def text(self, request: Request) -> Response:
        """A text is continued."""
        return await self._answer(request, text_question(await _body(request)))

    def _model(self) -> dict[str, Any]:
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "bitwright",
            "context_length": self.desk.context,
        }

    def _check(self, name: str) -> None:
        if name not in ("", self.name):
            message = f"There is no model {name[:80]!r} here, only {self.name!r}."
            raise Refused(404, message, code="model_not_found", param="model")

    async def _answer(self, request: Request, question: Question) -> Response:
        self._check(question.model)
        began = time.monotonic()
        ticket = self.desk.submit(question)
        watch = asyncio.create_task(_leave_when_gone(request.receive, ticket))
        reply, news = Reply(question, self.name), ticket.news()

        def done(status: int, ended: Ended | None) -> None:
            watch.cancel()
            ticket.leave()
            self.requests += 1
            tokens = (ended.prompt_tokens, ended.tokens) if ended else (0, 0)
            self.tell(Done(request.url.path, status, *tokens, time.monotonic() - began))

        try:
            # What cannot be answered is known before the first part, and has a status of its own until then.
            first = await anext(news)
            if question.stream:
                return _Stream(_pieces(reply, first, news), done)
            parts, ended = await _gathered(first, news)
        except BaseException as error:
            done(refused_by(error).status if isinstance(error, Exception) else 500, None)
            raise
        done(200, ended)
        return JSONResponse(reply.whole(parts, ended))


class _Stream(Response):
    """Server-sent events: one `data:` line a piece, and `[DONE]` behind the last."""

    def __init__(
        self, pieces: AsyncIterator[dict[str, Any] | Ended], done: Callable[[int, Ended | None], None]
    ) -> None:
        super().__init__(media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        del self.headers["content-length"]
        self._pieces, self._done = pieces, done

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ended: Ended | None = None
        status = 200

        async def line(data: str) -> None:
            await send({"type": "http.response.body", "body": f"data: {data}\n\n".encode(), "more_body": True})

        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            try:
                async for piece in self._pieces:
                    if isinstance(piece, Ended):
                        ended = piece
                    else:
                        await line(json.dumps(piece))
            except Refused as refused:  # the status is sent; the error comes as a piece
                status = refused.status
                await line(json.dumps(refused.body()))
            await line("[DONE]")
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._done(status, ended)


async def _pieces(
    reply: Reply, first: Part | Ended, news: AsyncIterator[Part | Ended]
) -> AsyncIterator[dict[str, Any] | Ended]:
    """The pieces of a streamed answer, with the end itself among them."""
    yield reply.first()
    found = first
    while isinstance(found, Part):
        yield reply.piece(found)
        found = await anext(news)
    yield found
    yield reply.last(found)
    if reply.question.include_usage:
        yield reply.figures(found)


async def _gathered(first: Part | Ended, news: AsyncIterator[Part | Ended]) -> tuple[list[Part], Ended]:
    parts, found = [], first
    while isinstance(found, Part):
        parts.append(found)
        found = await anext(news)
    return parts, found


async def _leave_when_gone(receive: Receive, ticket: Ticket) -> None:
    """Give the place up as soon as the client has closed its connection; the body has been read."""
    while (await receive())["type"] != "http.disconnect":
        continue
    ticket.leave()


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object that came with a request.

    Raises:
        Refused: 413, it is too large; 400, it is no JSON object.
    """
    too_large = Refused(413, f"A request has {BODY_BYTES >> 20} MiB at most.", code="request_too_large")
    said = request.headers.get("content-length", "")
    if re.fullmatch(r"\d{1,18}", said) and int(said) > BODY_BYTES:
        raise too_large
    found = bytearray()
    with contextlib.suppress(ClientDisconnect):
        async for piece in request.stream():
            found += piece
            if len(found) > BODY_BYTES:
                raise too_large
    try:
        value = json.loads(found.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        what = str(error) if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise Refused(400, f"The request is not valid JSON: {what}.", code="invalid_json") from error
    if not isinstance(value, dict):
        raise Refused(400, "The request has to be a JSON object.", code="invalid_json")
    return value


async def _http_error(request: Request, error: HTTPException) -> Response:
    if error.status_code == 404:
        refused = Refused(404, f"There is nothing at {request.url.path[:80]}.", code="unknown_path")
    elif error.status_code == 405:
        refused = Refused(405, f"{request.method} is not possible at {request.url.path[:80]}.", code="wrong_method")
    else:
        refused = Refused(error.status_code, str(error.detail))
    return JSONResponse(refused.body(), refused.status, {**refused.headers, **(error.headers or {})})


async def _refused(request: Request, error: Exception) -> Response:
    refused = refused_by(error)
    return JSONResponse(refused.body(), refused.status, refused.headers)
