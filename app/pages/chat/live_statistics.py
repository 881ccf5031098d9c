"""Statistics of an answer while it is generated, estimated from its pieces of text. Independent of Qt."""

from __future__ import annotations

from dataclasses import dataclass

from core.inference.generation.reply import Statistics


@dataclass
class LiveStatistics:
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
    def figures(self) -> Statistics:
        """As known by now; the tokens of the prompt are told at the end."""
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
