"""Separation of thinking and answer in a stream of text, and detection of stop texts.

The pieces of the stream may be split anywhere, also within a mark or a stop text.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["text", "thinking"]


@dataclass(frozen=True)
class ThinkingTags:
    """The marks before and after a model's thinking."""

    opens: str
    closes: str


KNOWN: Final = (
    ThinkingTags("<think>", "</think>"),  # DeepSeek R1, Qwen3, SmolLM3, GLM
    ThinkingTags("<thinking>", "</thinking>"),
    ThinkingTags("<thought>", "</thought>"),  # EXAONE Deep
    ThinkingTags("<reasoning>", "</reasoning>"),
    ThinkingTags("<seed:think>", "</seed:think>"),  # Seed-OSS
    ThinkingTags("[THINK]", "[/THINK]"),  # Magistral
    ThinkingTags("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A Reasoning
)


@dataclass(frozen=True)
class Part:
    """A piece of an answer, or of the thinking before it."""

    text: str
    kind: Kind = "text"


def marks_of(template: str, added: Collection[str] = ()) -> tuple[ThinkingTags, ...]:
    """Return the thinking marks that a model uses; other marks in its text are ordinary text.

    Args:
        template: the chat template; a pair counts if the template contains one of its marks.
        added: tokens added to the vocabulary; a pair counts if both marks are among them.
    """
    return tuple(
        marks
        for marks in KNOWN
        if marks.closes in template or marks.opens in template or (marks.opens in added and marks.closes in added)
    )


def held_back(text: str, mark: str) -> int:
    """Return the number of characters at the end of `text` that may be the beginning of `mark`."""
    return next((size for size in range(min(len(text), len(mark) - 1), 0, -1) if text.endswith(mark[:size])), 0)


class Splitter:
    """Splitter of a stream into thinking and text.

    Thinking can start only at the beginning of the answer; later, a mark is ordinary text. White space around the
    thinking is dropped.
    """

    def __init__(self, thinking: bool = False, marks: tuple[ThinkingTags, ...] = ()) -> None:
        """Start with the answer, or with `thinking` within thinking opened by the first of `marks`."""
        self._marks = marks
        self._open = marks[0] if thinking else None
        self._beginning = True
        self._thought_before = False
        self._text = ""

    @property
    def thinking(self) -> bool:
        """True if the stream is within thinking."""
        return self._open is not None

    def feed(self, piece: str) -> Iterator[Part]:
        """Yield the parts that are certain after one more piece of text, and keep the rest."""
        self._text += piece
        while True:
            before = (len(self._text), self._open)
            yield from self._thought() if self._open else self._answer()
            if (len(self._text), self._open) == before:
                return

    def flush(self) -> Iterator[Part]:
        """Yield the remaining part at the end of the stream."""
        rest, self._text = self._text, ""
        if self._open is not None:
            rest = rest.rstrip()
        elif self._beginning and self._thought_before:
            rest = rest.lstrip()
        if rest:
            yield Part(rest, "thinking" if self._open else "text")

    def _thought(self) -> Iterator[Part]:
        assert self._open is not None
        if self._beginning:
            self._text = self._text.lstrip()
            if not self._text:
                return
        text, mark, rest = self._text.partition(self._open.closes)
        if mark:
            self._open, self._beginning, self._thought_before = None, True, True
            self._text = rest.lstrip()
            text = text.rstrip()
        else:
            certain = len(text) - held_back(text, self._open.closes)
            certain = len(text[:certain].rstrip())
            self._text, text = text[certain:], text[:certain]
            self._beginning = self._beginning and not text
        if text:
            yield Part(text, "thinking")

    def _answer(self) -> Iterator[Part]:
        if self._beginning:
            start = self._text.lstrip()
            for marks in self._marks:
                if start.startswith(marks.opens):
                    self._open, self._text = marks, start[len(marks.opens) :]
                    return
            if any(marks.opens.startswith(start) for marks in self._marks):
                return  # white space, or an incomplete mark
            self._beginning = False
            self._text = start if self._thought_before else self._text
        if self._text:
            text, self._text = self._text, ""
            yield Part(text)


class StopMatcher:
    """Detector of stop texts across the pieces of an answer; stop texts are not part of the answer."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._text = ""

    def feed(self, piece: str) -> tuple[str, bool]:
        """Return the text that is certain after one more piece, and whether the answer ends after it."""
        if not self._stops:
            return piece, False
        self._text += piece
        found = [index for index in map(self._text.find, self._stops) if index >= 0]
        if found:
            text, self._text = self._text[: min(found)], ""
            return text, True
        certain = len(self._text) - max(held_back(self._text, stop) for stop in self._stops)
        text, self._text = self._text[:certain], self._text[certain:]
        return text, False

    def flush(self) -> str:
        """Return the remaining text at the end of the answer."""
        rest, self._text = self._text, ""
        return rest
