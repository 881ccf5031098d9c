"""Telling what a model thinks from what it says, in a stream of text that may be cut anywhere.

Knows the marks that models put around their thinking; nothing of tokens or templates' own words.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["text", "thinking"]


@dataclass(frozen=True)
class ThinkingTags:
    """What stands before and behind a model's thinking."""

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
    """A piece of an answer: what is said, or what is thought before it."""

    text: str
    kind: Kind = "text"


def marks_of(template: str, added: Collection[str] = ()) -> tuple[ThinkingTags, ...]:
    """Return the marks of thinking that a model has.

    Only these make a thought: to any other model, `<reasoning>` is a word like others.

    Args:
        template: the chat template, which mentions them.
        added: the tokens added to the vocabulary; a pair that is among them counts as well.
    """
    return tuple(
        marks
        for marks in KNOWN
        if marks.closes in template or marks.opens in template or (marks.opens in added and marks.closes in added)
    )


def held_back(text: str, mark: str) -> int:
    """How many characters at the end of `text` may be the beginning of `mark`."""
    return next((size for size in range(min(len(text), len(mark) - 1), 0, -1) if text.endswith(mark[:size])), 0)


class Splitter:
    """Splits a stream into parts. Thinking begins at the answer's beginning only: later, a mark is a word like others.

    White space at both ends of a thought, and before the text that follows it, belongs to neither.
    """

    def __init__(self, thinking: bool = False, marks: tuple[ThinkingTags, ...] = ()) -> None:
        """Begin with an answer, or within a thought that the first of `marks`, the model's, opened."""
        self._marks = marks
        self._open = marks[0] if thinking else None
        self._beginning = True
        self._thought_before = False
        self._text = ""

    @property
    def thinking(self) -> bool:
        """Whether the stream is within a thought."""
        return self._open is not None

    def feed(self, piece: str) -> Iterator[Part]:
        """What is sure after one more piece of text; the rest is kept."""
        self._text += piece
        while True:
            before = (len(self._text), self._open)
            yield from self._thought() if self._open else self._answer()
            if (len(self._text), self._open) == before:
                return

    def flush(self) -> Iterator[Part]:
        """What was kept, at the end of the stream."""
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
        said, mark, rest = self._text.partition(self._open.closes)
        if mark:
            self._open, self._beginning, self._thought_before = None, True, True
            self._text = rest.lstrip()
            said = said.rstrip()
        else:
            sure = len(said) - held_back(said, self._open.closes)
            sure = len(said[:sure].rstrip())
            self._text, said = said[sure:], said[:sure]
            self._beginning = self._beginning and not said
        if said:
            yield Part(said, "thinking")

    def _answer(self) -> Iterator[Part]:
        if self._beginning:
            start = self._text.lstrip()
            for marks in self._marks:
                if start.startswith(marks.opens):
                    self._open, self._text = marks, start[len(marks.opens) :]
                    return
            if any(marks.opens.startswith(start) for marks in self._marks):
                return  # white space, or half a mark
            self._beginning = False
            self._text = start if self._thought_before else self._text
        if self._text:
            said, self._text = self._text, ""
            yield Part(said)


class StopMatcher:
    """Looks for texts that end an answer, across the borders of its pieces. They are not part of it."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._text = ""

    def feed(self, piece: str) -> tuple[str, bool]:
        """What is sure to be said, and whether the answer ends behind it."""
        if not self._stops:
            return piece, False
        self._text += piece
        found = [place for place in map(self._text.find, self._stops) if place >= 0]
        if found:
            said, self._text = self._text[: min(found)], ""
            return said, True
        sure = len(self._text) - max(held_back(self._text, stop) for stop in self._stops)
        said, self._text = self._text[:sure], self._text[sure:]
        return said, False

    def flush(self) -> str:
        """What was kept, at the end of the answer."""
        rest, self._text = self._text, ""
        return rest
