"""The line at the model: requests wait in their order, and one thread, which alone touches the model, answers them.

Knows questions and parts of answers; nothing of HTTP.
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
from core.serving.faults import Record
from core.serving.questions import Question
from core.serving.refusals import Refused, refused_by

PLACES: Final = 128
"""Requests that may wait; the next one is sent away."""
_RETRY: Final = "2"
"""Seconds after which one that was sent away may try again."""
_CLIENT_LEFT: Final = 499
"""As nginx logs it; nobody is there to read it."""


class Talk(Protocol):
    """What the desk needs of a model that answers: `core.inference.generation.chat.ChatModel`."""

    statistics: Any

    @property
    def context(self) -> int: ...
    @property
    def template(self) -> str: ...
    @property
    def thinks(self) -> bool: ...
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
class Ended:
    """The end of an answer: why, and the tokens of the prompt, of those in the cache, and of the answer."""

    ended_by: str
    prompt_tokens: int
    cached_tokens: int
    tokens: int


class Ticket:
    """One request in the line; made by `Desk.submit` in the loop that will read from it."""

    def __init__(self, question: Question, leave: Callable[[Ticket], None]) -> None:
        self.question = question
        self._leave = leave
        self._loop = asyncio.get_running_loop()
        self._news: asyncio.Queue[Part | Ended | Refused] = asyncio.Queue()
        self._gone = threading.Event()

    def leave(self) -> None:
        """Nobody wants the answer any more: it ends within a token, or does not begin."""
        self._gone.set()
        self._leave(self)
        self.tell(Refused(_CLIENT_LEFT, "The client closed the connection.", code="client_left"))

    def left(self) -> bool:
        """Whether nobody wants the answer any more."""
        return self._gone.is_set()

    def tell(self, news: Part | Ended | Refused) -> None:
        """Hand something to the loop; from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it whoever waited
            self._loop.call_soon_threadsafe(self._news.put_nowait, news)

    async def news(self) -> AsyncIterator[Part | Ended]:
        """The parts of the answer as they come, and last its end.

        Raises:
            Refused: the question cannot be answered.
        """
        while True:
            found = await self._news.get()
            if isinstance(found, Refused):
                raise found
            yield found
            if isinstance(found, Ended):
                return


class Desk:
    """The line and the thread that works on it, until `close`."""

    def __init__(self, talk: Talk, record: Record, places: int = PLACES) -> None:
        self.context, self.template, self.thinks = talk.context, talk.template, talk.thinks
        self._talk, self._record, self._places = talk, record, places
        self._at_work = False
        self._line: deque[Ticket] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="answers", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests that have not begun."""
        return len(self._line)

    @property
    def busy(self) -> bool:
        """Whether the next request has to wait."""
        return self._at_work or bool(self._line)

    def submit(self, question: Question) -> Ticket:
        """Put a question at the end of the line.

        Raises:
            Refused: 429, all places are taken; 503, the desk is closed.
        """
        ticket = Ticket(question, self._drop)
        with self._changed:
            if self._closed:
                raise _closing()
            if len(self._line) >= self._places:
                message = f"{self._places} requests are waiting already; try again later."
                raise Refused(429, message, code="queue_full", headers={"Retry-After": _RETRY})
            self._line.append(ticket)
            self._changed.notify()
        return ticket

    def close(self) -> None:
        """End the answer at hand within a token, refuse those that wait, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _drop(self, ticket: Ticket) -> None:
        with self._changed, contextlib.suppress(ValueError):
            self._line.remove(ticket)

    def _work(self) -> None:
        while (ticket := self._next()) is not None:
            try:
                ticket.tell(self._answer(ticket))
            except Exception as error:  # noqa: BLE001 - one request that fails must not end the endpoint
                ticket.tell(refused_by(error, self._record))
        while self._line:
            self._line.popleft().tell(_closing())

    def _next(self) -> Ticket | None:
        with self._changed:
            self._at_work = False
            self._changed.wait_for(lambda: self._line or self._closed)
            self._at_work = not self._closed
            return None if self._closed else self._line.popleft()

    def _answer(self, ticket: Ticket) -> Ended | Refused:
        def should_stop() -> bool:
            return self._closed or ticket.left()

        question, talk = ticket.question, self._talk
        if question.messages is not None:
            room = self.context - talk.count(question.messages, question.continue_last, question.variables, should_stop)
            if room <= 0:
                raise _too_long(self.context - room, self.context)
            # with no more room than there is, no message is left out of the prompt
            limits = (question.sampling.max_tokens, question.sampling.min_tokens)
            longest, shortest = (min(room, tokens) for tokens in limits)
            sampling = replace(question.sampling, max_tokens=longest, min_tokens=shortest)
            parts = talk.reply(
                question.messages,
                sampling,
                should_stop,
                continue_last=question.continue_last,
                variables=question.variables,
            )
        else:
            parts = talk.complete(question.prompt or "", question.sampling, should_stop)
        for part in parts:
            ticket.tell(part)
        found = talk.statistics
        if self._closed and found.ended_by == "stopped":
            return _closing()
        return Ended(found.ended_by, found.prompt_tokens, found.cached_tokens, found.tokens)


def _too_long(tokens: int, context: int) -> Refused:
    message = f"The conversation has {tokens} tokens, and the model reads {context} with its answer."
    return Refused(400, message, code="context_length_exceeded", param="messages")


def _closing() -> Refused:
    return Refused(503, "The server is being stopped.", code="shutting_down")
