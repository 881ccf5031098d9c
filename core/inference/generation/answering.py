"""Generation of one answer: tokens are sampled from a runner until the answer ends, and decoded into parts of text."""

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
from core.inference.runners.runner import Runner, reads_pictures
from core.model.processor import PictureInputs
from core.model.tokenizer import hidden_ids


class PrefixCache:
    """A runner with the token ids in its cache; a prompt's common prefix with them is not processed again.

    A prompt with pictures is only continued if it has the same pictures as the cache and differs after the last one.
    """

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self._held: list[int] = []
        self._digests: tuple[str, ...] = ()

    def prefill(
        self, ids: Sequence[int], should_stop: ShouldStop, pictures: PictureInputs | None = None
    ) -> tuple[Tensor, int]:
        """Process the prompt `ids` and return the logits after its last token and the number of cached tokens.

        Args:
            pictures: the pictures of the prompt, if it has some; the runner must be able to read them.

        Raises:
            Cancelled: `should_stop` returned True; the tokens processed until then stay in the cache.
            BadInput, OutOfMemory: as in `Runner.extend`.
        """
        held = self._held[: self.runner.length]
        most = min(len(held), len(ids) - 1)
        common = next((index for index in range(most) if held[index] != ids[index]), most)
        digests = () if pictures is None else pictures.digests
        if digests != self._digests or (pictures is not None and common < pictures.end):
            common = 0
        if common < self.runner.length:
            self.runner.truncate(common)
        self._digests = digests
        if reads_pictures(self.runner):
            self.runner.set_pictures(pictures)
        try:
            return self.runner.extend(ids[common:], should_stop), common
        finally:
            self._held = list(ids[: self.runner.length])

    def step(self, token: int, should_stop: ShouldStop) -> Tensor:
        """Process one more token and return the logits after it; raises as `prefill`."""
        logits = self.runner.extend([token], should_stop)
        self._held.append(token)
        return logits

    def forget(self) -> None:
        """Empty the cache."""
        self._held, self._digests = [], ()
        self.runner.truncate(0)
        if reads_pictures(self.runner):
            self.runner.set_pictures(None)


class Answer:
    """An answer during generation.

    Attributes:
        statistics: figures so far.
        tokens: generated token ids, without the end token.
    """

    def __init__(
        self, runner: PrefixCache, tokenizer: Any, ends: Collection[int], prompt: Prompt, sampling: Sampling
    ) -> None:
        """Prepare to answer `prompt`; `ends` are the ids of the end tokens."""
        self._runner, self._prompt, self._sampling = runner, prompt, sampling
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
        """Generate the answer and yield its parts; can be called once.

        The answer ends when the iterator is closed or `should_stop` returns True.

        Raises:
            BadInput, OutOfMemory: as in `Runner.extend`.
        """
        statistics = self.statistics
        try:
            for token in self._generate(should_stop):
                piece = self._pieces.feed(token)
                self.tokens.append(token)
                statistics.pieces.append(piece)
                yield from self._until_stop(self._splitter.feed(piece))
                if statistics.ended_by == "stop":
                    return
            if rest := self._pieces.flush():
                statistics.pieces[-1] = rest
                yield from self._until_stop(self._splitter.feed(rest))
            yield from self._until_stop(self._splitter.flush())
            if last := self._ending.flush():
                yield Part(last)
        finally:
            statistics.ended_by = statistics.ended_by or "stopped"
            statistics.memory_bytes = self._runner.runner.memory_bytes
            statistics.compute_speeds()

    def _until_stop(self, parts: Iterator[Part]) -> Iterator[Part]:
        """Yield the parts up to a stop text; stop texts are not searched in thinking."""
        statistics = self.statistics
        for part in parts:
            if part.kind == "thinking":
                statistics.thinking_seconds = statistics.seconds - statistics.first_token_seconds
                yield part
                continue
            if statistics.tokens < self._sampling.min_tokens:
                yield part
                continue
            text, ended = self._ending.feed(part.text)
            if text:
                yield Part(text)
            if ended:
                statistics.ended_by = "stop"
                return

    def _generate(self, should_stop: ShouldStop) -> Iterator[int]:
        """Yield the generated tokens; records the times and the reason for the end in `statistics`."""
        statistics, ids, began = self.statistics, self._prompt.ids, time.monotonic()
        sampler = TokenSampler(self._sampling, statistics.seed, ids)
        room = self._runner.runner.context - len(ids)
        limit = min(self._sampling.max_tokens, room)
        try:
            logits, statistics.cached_tokens = self._runner.prefill(ids, should_stop, self._prompt.pictures)
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
                logits = self._runner.step(token, should_stop)
        except Cancelled:
            statistics.ended_by = "stopped"


def _stop_marks(tokenizer: Any, stops: Sequence[str]) -> list[int]:
    """Return the ids of the special tokens among the stop texts.

    Special tokens do not appear in the text of an answer, so that a text search would not find them. Clients pass the
    marks of a chat format as stop texts (LostRuins/koboldcpp#812).
    """
    if not stops:
        return []
    added, hidden = tokenizer.get_added_vocab(), hidden_ids(tokenizer)
    return [added[text] for text in stops if added.get(text) in hidden]
