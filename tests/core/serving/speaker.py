"""A scripted model for tests of the endpoint, whose answers can be paused."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from core.control import ShouldStop, never
from core.inference.generation.thinking import Part


@dataclass
class Figures:
    """The fields of `Statistics` that the endpoint uses."""

    ended_by: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    tokens: int = 0


class Speaker:
    """A model that answers with the words of the last message, or with given words, one at a time.

    Attributes:
        asked: messages or text of every started request.
        samplings: sampling parameters of every started request.
        formats: `continue_last` and the template variables of every conversation.
        going: while it is cleared, answers wait before each word.
        pause_after: number of words after which an answer clears `going`.
        stops: number of stopped answers.
        threads: names of the threads that ran the model.
    """

    def __init__(
        self,
        words: Sequence[Part] = (),
        context: int = 100,
        error: Exception | None = None,
        template: str = "{{ messages }}",
        reads: tuple[str, ...] = ("text",),
        pictures_note: str = "",
    ) -> None:
        self.context, self.reads, self.pictures_note = context, reads, pictures_note
        self.statistics = Figures()
        self.asked: list[Any] = []
        self.samplings: list[Any] = []
        self.formats: list[tuple[bool, dict[str, Any]]] = []
        self.template, self.thinks = template, "think" in template
        self.stops = 0
        self.threads: set[str] = set()
        self.going = threading.Event()
        self.going.set()
        self.pause_after: int | None = None
        self._words, self._error = words, error

    def count(
        self,
        messages: Sequence[dict[str, str]],
        continue_last: bool = False,
        variables: Any = None,
        should_stop: ShouldStop = never,
    ) -> int:
        return sum(len(message["content"].split()) for message in messages)

    def reply(
        self,
        messages: Any,
        sampling: Any,
        should_stop: ShouldStop,
        *,
        continue_last: bool = False,
        variables: Any = None,
    ) -> Iterator[Part]:
        self.formats.append((continue_last, dict(variables or {})))
        return self._say(messages, messages[-1]["content"], self.count(messages), sampling, should_stop)

    def complete(self, text: str, sampling: Any, should_stop: ShouldStop) -> Iterator[Part]:
        return self._say(text, text, len(text.split()), sampling, should_stop)

    def _say(self, asked: Any, text: str, length: int, sampling: Any, should_stop: ShouldStop) -> Iterator[Part]:
        self.asked.append(asked)
        self.samplings.append(sampling)
        self.threads.add(threading.current_thread().name)
        self.statistics = found = Figures(prompt_tokens=length, cached_tokens=length // 2)
        if self._error is not None:
            raise self._error
        for word in self._words or [Part(f"{word} ") for word in text.split()]:
            if found.tokens == self.pause_after:
                self.going.clear()
            while not self.going.wait(0.01):
                if should_stop():
                    break
            if should_stop():
                self.stops += 1
                found.ended_by = "stopped"
                return
            found.tokens += 1
            yield word
            if found.tokens >= sampling.max_tokens:
                found.ended_by = "length"
                return
            if any(stop in word.text for stop in sampling.stop):
                found.ended_by = "stop"
                return
        found.ended_by = "end"
