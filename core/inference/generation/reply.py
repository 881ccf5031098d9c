"""An answer of a model and its statistics. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from core.codec import encode


@dataclass
class Statistics:
    """Statistics of one answer.

    Attributes:
        prompt_tokens: number of tokens of the prompt.
        tokens: number of generated tokens, without the end token.
        first_token_seconds: time until the first token.
        seconds: time until the last token.
        tokens_per_second: decode speed, without the first token; 0 until the answer has ended.
        ended_by: `end`, `stop` (a stop text), `length`, `context` or `stopped`; "" during generation.
        cached_tokens: number of prompt tokens that were already in the cache.
        prompt_tokens_per_second: prefill speed, without the cached tokens; 0 until the answer has ended.
        prompt_seconds: time of the prefill.
        thinking_seconds: time from the first token to the end of the thinking; 0 without thinking.
        dropped_messages: number of messages left out of the prompt because the context is too small.
        memory_bytes: memory of weights and cache.
        seed: seed that reproduces the answer.
        pieces: text of each token, "" for an incomplete character.
        note: remark about the prompt for the user, as one sentence, or "".
    """

    prompt_tokens: int = 0
    tokens: int = 0
    first_token_seconds: float = 0.0
    seconds: float = 0.0
    tokens_per_second: float = 0.0
    ended_by: str = ""
    cached_tokens: int = 0
    prompt_tokens_per_second: float = 0.0
    prompt_seconds: float = 0.0
    thinking_seconds: float = 0.0
    dropped_messages: int = 0
    memory_bytes: int = 0
    seed: int = 0
    pieces: list[str] = field(default_factory=list)
    note: str = ""

    @property
    def used(self) -> int:
        """Tokens of the context used by prompt and answer."""
        return self.prompt_tokens + self.tokens

    def compute_speeds(self) -> None:
        """Set both speeds from the counts and times."""
        spent, read = self.seconds - self.first_token_seconds, self.prompt_tokens - self.cached_tokens
        self.tokens_per_second = (self.tokens - 1) / spent if self.tokens > 1 and spent > 0 else 0.0
        self.prompt_tokens_per_second = read / self.prompt_seconds if self.prompt_seconds > 0 else 0.0

    def followed_by(self, more: Statistics) -> Statistics:
        """Return the statistics of an answer whose second part has the statistics `more`.

        The prompt of the second part contains the first one, so those tokens are counted with the answer.
        """
        return replace(
            more,
            prompt_tokens=max(0, more.prompt_tokens - self.tokens),
            tokens=self.tokens + more.tokens,
            first_token_seconds=self.first_token_seconds,
            seconds=self.seconds + more.seconds,
            thinking_seconds=self.thinking_seconds + more.thinking_seconds,
        )

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        values: dict[str, Any] = encode(self)
        return values


@dataclass(frozen=True)
class ChatAnswer:
    """One answer of a model: text, thinking and statistics."""

    text: str = ""
    thinking: str = ""
    statistics: Statistics = field(default_factory=Statistics)
