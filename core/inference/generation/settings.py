"""Sampling settings of text generation. Imports no torch."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any, Final

from core.errors import BadInput

LARGEST_SEED: Final = 2**63 - 1
MOST_STOPS: Final = 64


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters; a temperature of 0 means greedy decoding.

    Attributes:
        max_tokens: maximum length of the answer, in tokens.
        temperature, top_p, top_k, min_p, repetition_penalty: as in transformers; the neutral value disables each.
        presence_penalty: subtracted once from the logit of every token that is in the answer.
        frequency_penalty: subtracted from the logit of a token for each of its occurrences in the answer.
        seed: seed of the random draws; the same seed gives the same answer. None draws a seed, which is reported in
            the statistics.
        stop: texts that end the answer; they are not part of it.
        stop_token_ids: further end tokens.
        min_tokens: minimum length of the answer, in tokens.
        ignore_eos: never select the model's own end tokens.
    """

    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    min_tokens: int = 0
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        limits: tuple[tuple[str, Any, float, float, bool], ...] = (
            ("max tokens", self.max_tokens, 1, 1_000_000, True),
            ("temperature", self.temperature, 0, 10, False),
            ("top p", self.top_p, 0.0001, 1, False),
            ("top k", self.top_k, 0, 1_000_000, True),
            ("min p", self.min_p, 0, 1, False),
            ("repetition penalty", self.repetition_penalty, 0.1, 10, False),
            ("presence penalty", self.presence_penalty, -2, 2, False),
            ("frequency penalty", self.frequency_penalty, -2, 2, False),
            ("min tokens", self.min_tokens, 0, self.max_tokens, True),
            ("seed", 0 if self.seed is None else self.seed, -LARGEST_SEED, LARGEST_SEED, True),
        )
        for label, value, low, high, whole in limits:
            kinds = (int,) if whole else (int, float)
            if type(value) not in kinds or not low <= value <= high:
                number = "whole number" if whole else "number"
                raise BadInput(f"{label} {value} is out of range.", f"Choose a {number} from {low:g} to {high:g}.")
        if not isinstance(self.stop, tuple) or not all(isinstance(text, str) and text for text in self.stop):
            raise BadInput("A stop text must be a non-empty string.", "Correct or remove it.")
        if len(self.stop) > MOST_STOPS:
            raise BadInput(f"{len(self.stop)} stop texts are too many.", f"Use at most {MOST_STOPS}.")
        if not all(type(token) is int and token >= 0 for token in self.stop_token_ids):
            raise BadInput("A stop token must be a non-negative integer.", "Correct or remove it.")

    def drawn_seed(self) -> int:
        """Return the seed, or a random one if it is None."""
        return secrets.randbelow(2**31) if self.seed is None else self.seed
