"""Statistics of an answer while it is generated, estimated from its pieces of text. Independent of Qt."""

from __future__ import annotations

from dataclasses import dataclass

from core.inference.generation.reply import Statistics


@dataclass
class LiveStatistics:
    """Statistics of an answer that is being generated, from its pieces of text and their arrival times.

    A piece may hold several tokens, so the number of tokens is estimated from the characters until the final statistics
    arrive.

    Attributes:
        began, first, last: time of the request, of the first and of the last piece (seconds since the epoch, 0: none).
        letters: characters of all pieces, and of the first.
        per_token: average characters per token, best taken from an earlier answer of the same model.
        thought_until: arrival of the last piece of reasoning, 0 for none.
    """

    began: float
    per_token: float = 4.0
    first: float = 0.0
    last: float = 0.0
    letters: int = 0
    first_letters: int = 0
    thought_until: float = 0.0

    def piece(self, text: str, at: float, *, thinking: bool = False) -> None:
        """Add a piece of text that arrived at `at`."""
        if not self.first:
            self.first, self.first_letters = at, len(text)
        if thinking:
            self.thought_until = at
        self.last = at
        self.letters += len(text)

    @property
    def figures(self) -> Statistics:
        """Return the statistics so far; the number of prompt tokens is only known at the end."""
        if not self.letters:
            return Statistics()
        spent = self.last - self.first
        speed = (self.letters - self.first_letters) / self.per_token / spent if spent > 0 else 0.0
        return Statistics(
            tokens=max(1, round(self.letters / self.per_token)),
            first_token_seconds=max(0.0, self.first - self.began),
            seconds=max(0.0, self.last - self.began),
            tokens_per_second=speed,
            thinking_seconds=max(0.0, self.thought_until - self.first) if self.thought_until else 0.0,
        )
