"""One answer: tokens from a runner until something ends it, as parts of text, with its figures.

Knows a runner, a tokenizer and a prompt; nothing of conversations or templates.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from torch import Tensor

from core.control import ShouldStop
from core.errors import Cancelled
from core.inference.generation.pieces import Pieces
from core.inference.generation.prompt import Prompt
from core.inference.generation.reply import Statistics
from core.inference.generation.sampling import TokenSampler
from core.inference.generation.settings import Sampling
from core.inference.generation.thinking import Part, Splitter, StopMatcher
from core.inference.runners.runner import Runner
from core.model.tokenizer import hidden_ids


class PrefixCache:
    """A runner together with the tokens that its cache holds: what a text has in common with them is not read again."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self._held: list[int] = []

    def read(self, ids: Sequence[int], should_stop: ShouldStop) -> tuple[Tensor, int]:
        """Logits behind the whole text `ids`, and how many of its tokens the cache held.

        Raises:
            Cancelled: `should_stop` said so; what was read by then is kept.
            BadInput, OutOfMemory: as `Runner.extend`.
        """
        held = self._held[: self.runner.length]
        most = min(len(held), len(ids) - 1)
        common = next((place for place in range(most) if held[place] != ids[place]), most)
        if common < self.runner.length:
            self.runner.truncate(common)
        try:
            return self.runner.extend(ids[common:], should_stop), common
        finally:
            self._held = list(ids[: self.runner.length])

    def step(self, token: int, should_stop: ShouldStop) -> Tensor:
        """Logits behind one more token; raises as `read`."""
        logits = self.runner.extend([token], should_stop)
        self._held.append(token)
        return logits

    def forget(self) -> None:
        """Empty the cache."""
        self._held = []
        self.runner.truncate(0)


class Answer:
    """An answer as it comes.

    Attributes:
        statistics: as known by now.
        tokens: of the answer, without its end.
    """

    def __init__(
        self, reader: PrefixCache, tokenizer: Any, ends: Collection[int], prompt: Prompt, sampling: Sampling
    ) -> None:
        """Prepare to answer `prompt`; `ends` are the tokens that end an answer."""
        self._reader, self._prompt, self._sampling = reader, prompt, sampling
        own = () if sampling.ignore_eos else ends
        self._ends = frozenset((*own, *sampling.stop_token_ids, *_stop_marks(tokenizer, sampling.stop)))
        self._never = frozenset(ends) - self._ends
        shown = [word for marks in prompt.marks for word in (marks.opens, marks.closes)]
        self._pieces = Pieces(tokenizer, prompt.ids if prompt.continues else (), shown)
        self._splitter = Splitter(prompt.thinking, prompt.marks)
        self._ending = StopMatcher(sampling.stop)
        self.tokens: list[int] = []
        self.statistics = Statistics(
            prompt_tokens=len(prompt.ids),
            dropped_messages=prompt.dropped,
            seed=sampling.drawn_seed(),
            note=prompt.note,
        )

    def parts(self, should_stop: ShouldStop) -> Iterator[Part]:
        """The answer, once. Closing the iterator ends it; raises as `PrefixCache.read`, but a stop only ends it."""
        statistics = self.statistics
        try:
            for token in self._chosen(should_stop):
                piece = self._pieces.feed(token)
                self.tokens.append(token)
                statistics.pieces.append(piece)
                yield from self._told(self._splitter.feed(piece))
                if statistics.ended_by == "stop":
                    return
            if rest := self._pieces.flush():
                statistics.pieces[-1] = rest
                yield from self._told(self._splitter.feed(rest))
            yield from self._told(self._splitter.flush())
            if last := self._ending.flush():
                yield Part(last)
        finally:
            statistics.ended_by = statistics.ended_by or "stopped"
            statistics.memory_bytes = self._reader.runner.memory_bytes
            statistics.compute_speeds()

    def _told(self, parts: Iterator[Part]) -> Iterator[Part]:
        """The parts that are sure, up to a stop text, which thoughts may hold."""
        statistics = self.statistics
        for part in parts:
            if part.kind == "thinking":
                statistics.thinking_seconds = statistics.seconds - statistics.first_token_seconds
                yield part
                continue
            if statistics.tokens < self._sampling.min_tokens:
                yield part
                continue
            said, ended = self._ending.feed(part.text)
            if said:
                yield Part(said)
            if ended:
                statistics.ended_by = "stop"
                return

    def _chosen(self, should_stop: ShouldStop) -> Iterator[int]:
        """The tokens as they are chosen; keeps the times, and says what ended them."""
        statistics, ids, began = self.statistics, self._prompt.ids, time.monotonic()
        sampler = TokenSampler(self._sampling, statistics.seed, ids)
        room = self._reader.runner.context - len(ids)
        limit = min(self._sampling.max_tokens, room)
        try:
            logits, statistics.cached_tokens = self._reader.read(ids, should_stop)
            statistics.prompt_seconds = time.monotonic() - began
            while True:
                early = statistics.tokens < self._sampling.min_tokens
                token = sampler.next(logits, self._ends | self._never if early else self._never)
                statistics.seconds = time.monotonic() - began
                statistics.first_token_seconds = statistics.first_token_seconds or statistics.seconds
                if token in self._ends:
                    statistics.ended_by = "end"
                    return
                statistics.tokens += 1
                yield token
                if statistics.tokens >= limit:
                    statistics.ended_by = "length" if self._sampling.max_tokens <= room else "context"
                    return
                if should_stop():
                    raise Cancelled("The answer was stopped.")
                logits = self._reader.step(token, should_stop)
        except Cancelled:
            statistics.ended_by = "stopped"


def _stop_marks(tokenizer: Any, stops: Sequence[str]) -> list[int]:
    """The special tokens among stop texts: an answer does not show them, so that no text would be found.

    Clients name the marks of a chat format as stop texts (LostRuins/koboldcpp#812).
    """
    if not stops:
        return []
    added, hidden = tokenizer.get_added_vocab(), hidden_ids(tokenizer)
    return [added[text] for text in stops if added.get(text) in hidden]
