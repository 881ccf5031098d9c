"""A queue of requests in front of a model, and the one thread that runs the model and answers them in order.

Independent of HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from core.control import ShouldStop
from core.inference.generation.thinking import Part
from core.serving.completion_requests import CompletionRequest
from core.serving.faults import Record
from core.serving.request_errors import RequestError, request_error

MAX_WAITING: Final = 128
"""Maximum number of waiting requests; further ones are rejected with status 429."""
_RETRY: Final = "2"
"""Seconds in the `Retry-After` header of a rejected request."""
_CLIENT_LEFT: Final = 499
"""Status of nginx for a client that closed its connection; used in the log only."""


class CompletionModel(Protocol):
    """The part of `core.inference.generation.chat.ChatModel` that the queue uses."""

    statistics: Any

    @property
    def context(self) -> int: ...
    @property
    def template(self) -> str: ...
    @property
    def thinks(self) -> bool: ...
    @property
    def reads(self) -> tuple[str, ...]: ...
    @property
    def pictures_note(self) -> str: ...
    def count(
        self, messages: Any, continue_last: bool, variables: Mapping[str, Any], should_stop: ShouldStop
    ) -> int: ...
    def reply(
        self,
        messages: Any,
        sampling: Any,
        should_stop: ShouldStop,
        *,
        continue_last: bool,
        variables: Mapping[str, Any],
    ) -> Iterator[Part]: ...
    def complete(self, text: str, sampling: Any, should_stop: ShouldStop) -> Iterator[Part]: ...


@dataclass(frozen=True)
class CompletionEnd:
    """The end of a completion: the reason, and the number of prompt, cached and generated tokens."""

    ended_by: str
    prompt_tokens: int
    cached_tokens: int
    tokens: int


class QueuedRequest:
    """A request in the queue. Created by `RequestQueue.submit` in the event loop that reads the answer."""

    def __init__(self, request: CompletionRequest, remove: Callable[[QueuedRequest], None]) -> None:
        self.request = request
        self._remove = remove
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Part | CompletionEnd | RequestError] = asyncio.Queue()
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Cancel the request: its answer ends within one token, or is never started."""
        self._cancelled.set()
        self._remove(self)
        self.put(RequestError(_CLIENT_LEFT, "The client closed the connection.", code="client_left"))

    def cancelled(self) -> bool:
        """Return whether the request was cancelled."""
        return self._cancelled.is_set()

    def put(self, event: Part | CompletionEnd | RequestError) -> None:
        """Pass a part of the answer, its end or an error to the event loop. Thread-safe."""
        with contextlib.suppress(RuntimeError):  # the event loop has been closed
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def events(self) -> AsyncIterator[Part | CompletionEnd]:
        """Yield the parts of the answer as they are generated, then its end.

        Raises:
            RequestError: the request cannot be answered.
        """
        while True:
            found = await self._events.get()
            if isinstance(found, RequestError):
                raise found
            yield found
            if isinstance(found, CompletionEnd):
                return


class RequestQueue:
    """The queue and the thread that processes it until `close`."""

    def __init__(self, talk: CompletionModel, record: Record, max_waiting: int = MAX_WAITING) -> None:
        self.context, self.template, self.thinks = talk.context, talk.template, talk.thinks
        self.reads, self.pictures_note = talk.reads, talk.pictures_note
        self._talk, self._record, self._max_waiting = talk, record, max_waiting
        self._at_work = False
        self._queue: deque[QueuedRequest] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="answers", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """The number of requests that have not been started."""
        return len(self._queue)

    @property
    def busy(self) -> bool:
        """True if the next request would have to wait."""
        return self._at_work or bool(self._queue)

    def submit(self, request: CompletionRequest) -> QueuedRequest:
        """Append a request to the queue.

        Raises:
            RequestError: 429 if the queue is full; 503 if it is closed.
        """
        queued = QueuedRequest(request, self._drop)
        with self._changed:
            if self._closed:
                raise _closing()
            if len(self._queue) >= self._max_waiting:
                message = f"{self._max_waiting} requests are already waiting. Try again later."
                raise RequestError(429, message, code="queue_full", headers={"Retry-After": _RETRY})
            self._queue.append(queued)
            self._changed.notify()
        return queued

    def close(self) -> None:
        """Stop the current answer within one token, reject the waiting requests and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _drop(self, queued: QueuedRequest) -> None:
        with self._changed, contextlib.suppress(ValueError):
            self._queue.remove(queued)

    def _work(self) -> None:
        while (queued := self._next()) is not None:
            try:
                queued.put(self._answer(queued))
            except Exception as error:  # noqa: BLE001 - one request that fails must not end the endpoint
                queued.put(request_error(error, self._record))
        while self._queue:
            self._queue.popleft().put(_closing())

    def _next(self) -> QueuedRequest | None:
        with self._changed:
            self._at_work = False
            self._changed.wait_for(lambda: self._queue or self._closed)
            self._at_work = not self._closed
            return None if self._closed else self._queue.popleft()

    def _answer(self, queued: QueuedRequest) -> CompletionEnd | RequestError:
        def should_stop() -> bool:
            return self._closed or queued.cancelled()

        request, talk = queued.request, self._talk
        if request.messages is not None:
            room = self.context - talk.count(request.messages, request.continue_last, request.variables, should_stop)
            if room <= 0:
                raise _too_long(self.context - room, self.context)
            # The answer is limited to the remaining context, so that no message is dropped from the prompt.
            limits = (request.sampling.max_tokens, request.sampling.min_tokens)
            longest, shortest = (min(room, tokens) for tokens in limits)
            sampling = replace(request.sampling, max_tokens=longest, min_tokens=shortest)
            parts = talk.reply(
                request.messages,
                sampling,
                should_stop,
                continue_last=request.continue_last,
                variables=request.variables,
            )
        else:
            parts = talk.complete(request.prompt or "", request.sampling, should_stop)
        for part in parts:
            queued.put(part)
        found = talk.statistics
        if self._closed and found.ended_by == "stopped":
            return _closing()
        return CompletionEnd(found.ended_by, found.prompt_tokens, found.cached_tokens, found.tokens)


def _too_long(tokens: int, context: int) -> RequestError:
    message = f"The conversation has {tokens} tokens, but the context has only {context} including the answer."
    return RequestError(400, message, code="context_length_exceeded", param="messages")


def _closing() -> RequestError:
    return RequestError(503, "The server is shutting down.", code="shutting_down")
