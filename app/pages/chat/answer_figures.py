"""What an answer cost: from the result of the call, or worked out while the answer is still coming.

Plain values; knows no Qt, no child process and no conversation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any


@dataclass(frozen=True)
class Figures:
    """What one answer cost.

    Attributes:
        prompt_tokens: of all that the model read; tokens: of the answer.
        first_token_seconds: until the first token; seconds: until the last.
        tokens_per_second: of the tokens after the first.
        ended_by: `end`, `length`, `context`, `stopped`, `failed`, or "" while it goes on.
        cached_tokens: of the prompt that were in the cache already, from the turn before.
        prompt_tokens_per_second: how fast the others were read.
        dropped_messages: oldest messages that were left out because the context is full.
        memory_bytes: of weights and cache; thinking_seconds: before the answer began; seed: of the draw.
        note: about how the conversation was given to the model; "" for nothing.
    """

    prompt_tokens: int = 0
    tokens: int = 0
    first_token_seconds: float = 0.0
    seconds: float = 0.0
    tokens_per_second: float = 0.0
    ended_by: str = ""
    cached_tokens: int = 0
    prompt_tokens_per_second: float = 0.0
    dropped_messages: int = 0
    memory_bytes: int = 0
    thinking_seconds: float = 0.0
    seed: int = 0
    note: str = ""

    @property
    def used(self) -> int:
        """Tokens of the model's context that the conversation fills."""
        return self.prompt_tokens + self.tokens

    def followed_by(self, more: Figures) -> Figures:
        """Of an answer whose second part cost `more`: its own tokens and times added up, the rest of the second part.

        The second part read the first one as its prompt, so those tokens are counted with the answer again.
        """
        return replace(
            more,
            prompt_tokens=max(0, more.prompt_tokens - self.tokens),
            tokens=self.tokens + more.tokens,
            first_token_seconds=self.first_token_seconds,
            seconds=self.seconds + more.seconds,
            thinking_seconds=self.thinking_seconds + more.thinking_seconds,
        )


def figures_from(values: Mapping[str, Any]) -> Figures:
    """The figures in the result of an answer; what is missing or of another kind counts as none."""
    found: dict[str, Any] = {}
    for name in (each.name for each in fields(Figures)):
        default = getattr(Figures, name)
        value = values.get(name, default)
        fits = isinstance(value, str) if isinstance(default, str) else _is_number(value)
        found[name] = type(default)(value) if fits else default
    return Figures(**found)


@dataclass
class Meter:
    """Figures of an answer that is still coming, from the pieces of text and when they came.

    Pieces may hold several tokens, so tokens are worked out from the letters until the end tells the real number.

    Attributes:
        began: when it was asked for; first, last: when pieces came (seconds since the epoch, 0 for none).
        letters: of all pieces, and of the first.
        per_token: letters that a token holds on average, best known from an answer of the same model.
        thought_until: when the last piece of thinking came, 0 where there was none.
    """

    began: float
    per_token: float = 4.0
    first: float = 0.0
    last: float = 0.0
    letters: int = 0
    first_letters: int = 0
    thought_until: float = 0.0

    def piece(self, text: str, at: float, *, thinking: bool = False) -> None:
        """Note a piece of text that came at `at`."""
        if not self.first:
            self.first, self.first_letters = at, len(text)
        if thinking:
            self.thought_until = at
        self.last = at
        self.letters += len(text)

    @property
    def figures(self) -> Figures:
        """As known by now; the tokens of the prompt are told at the end."""
        if not self.letters:
            return Figures()
        spent = self.last - self.first
        speed = (self.letters - self.first_letters) / self.per_token / spent if spent > 0 else 0.0
        return Figures(
            tokens=max(1, round(self.letters / self.per_token)),
            first_token_seconds=max(0.0, self.first - self.began),
            seconds=max(0.0, self.last - self.began),
            tokens_per_second=speed,
            thinking_seconds=max(0.0, self.thought_until - self.first) if self.thought_until else 0.0,
        )


def _is_number(value: Any) -> bool:
    # a number that no float or int can stand for (NaN, infinity) counts as none
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
