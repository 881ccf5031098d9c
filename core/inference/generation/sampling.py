"""From logits to the next token: what a user may ask of the choice, and the choice itself.

Sorts no vocabulary: a sample says where a threshold lies, and the draw is a race of waiting times, one per token.
Knows numbers only; nothing of models, text or files.
"""

from __future__ import annotations

import functools
import hashlib
import math
import struct
from collections.abc import Collection, Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from core.errors import VerificationFailed
from core.inference.generation.settings import Sampling

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]
Words = NDArray[np.uint32]
_FEW: Final = 4096
"""So many numbers are sorted without a thought."""
_SAMPLE: Final = 2048
_HEAVY: Final = 0.01
_COLDEST: Final = 1e-6
"""Lowest temperature that is computed with: below it the likeliest token is as good as certain."""
_WORDS: Final = 1 << 32


class TokenSampler:
    """Chooses the tokens of one answer, one after the other.

    Every token waits for a time that seed, step and token alone decide, divided by its probability, and the first wins
    (the Gumbel-max trick: Gumbel 1954; Maddison, Tarlow and Minka 2014, arXiv 1411.0030). This is a fair draw, and two
    models that predict nearly the same draw nearly the same tokens from one seed.
    """

    def __init__(self, sampling: Sampling, seed: int, prompt: Iterable[int] = ()) -> None:
        self._sampling = sampling
        self._key = seed & ((1 << 64) - 1)
        self._step = 0
        self._seen: dict[int, None] = dict.fromkeys(prompt) if sampling.repetition_penalty != 1.0 else {}
        self._seen_array: Indices = np.fromiter(self._seen, np.int64, len(self._seen))
        self._counts: dict[int, int] = {}
        self._room: Floats = np.empty(0, np.float32)
        self._scores: Floats = np.empty(0, np.float32)
        self._words: Words = np.empty((2, 0), np.uint32)

    def next(self, logits: Tensor, barred: Collection[int] = ()) -> int:
        """The next token.

        Args:
            logits: float32 [vocabulary], on the CPU; not changed.
            barred: tokens that are not chosen.

        Raises:
            VerificationFailed: they hold NaN, or nothing finite.
        """
        values = logits.detach().numpy()
        if barred:
            values = values.copy()
            values[[token for token in barred if token < len(values)]] = -np.inf
        token = self.choose(values)
        self._step += 1
        self._counts[token] = self._counts.get(token, 0) + 1
        if self._sampling.repetition_penalty != 1.0 and token not in self._seen:
            self._seen[token] = None
            self._seen_array = np.append(self._seen_array, token)
        return token

    def choose(self, logits: Floats) -> int:
        """What `next` returns, without taking note of it."""
        scores = self.penalised(logits)
        if self._sampling.temperature == 0:
            best = int(scores.argmax())
            _check(scores[best])
            return best
        ids, weights = self.candidates(scores)
        if len(weights) == 1:
            return int(ids[0]) if ids is not None else 0
        if self._words.shape[1] < len(weights):
            self._words = np.empty((2, len(weights)), np.uint32)
        return _draw(ids, weights, self._key, self._step, self._words)

    def penalised(self, logits: Floats) -> Floats:
        """Logits after the penalties, good until the next call; the same array where there are none."""
        sampling = self._sampling
        counted = bool(self._counts) and (sampling.presence_penalty != 0 or sampling.frequency_penalty != 0)
        if not self._seen and not counted:
            return logits
        scores = self._scores = self._scores if len(self._scores) == len(logits) else np.empty_like(logits)
        np.copyto(scores, logits)
        if self._seen:
            seen = scores[self._seen_array]
            factor = np.float32(sampling.repetition_penalty)
            scores[self._seen_array] = np.where(seen < 0, seen * factor, seen / factor)
        if counted:
            ids = np.fromiter(self._counts, np.int64, len(self._counts))
            times = np.fromiter(self._counts.values(), np.float32, len(self._counts))
            scores[ids] -= np.float32(sampling.presence_penalty) + np.float32(sampling.frequency_penalty) * times
        return scores

    def candidates(self, scores: Floats) -> tuple[Indices | None, Floats]:
        """Tokens that may be drawn (None: all, in order) and their weights, 1 for the likeliest.

        Temperature, top k, top p and min p in this order, as transformers applies them. The weights are good until the
        next call.
        """
        sampling = self._sampling
        if len(self._room) < len(scores):
            self._room = np.empty(len(scores), np.float32)  # new memory for every token takes longer than the rest
        top = scores.max()
        _check(top)
        ids: Indices | None = None
        if 0 < sampling.top_k < len(scores):
            ids = np.flatnonzero(scores >= kth_largest(scores, sampling.top_k))
            scores = scores[ids]
        weights = np.subtract(scores, top, out=self._room[: len(scores)])
        weights *= np.float32(1 / max(sampling.temperature, _COLDEST))
        np.exp(weights, out=weights)
        bound = np.float32(sampling.min_p)
        if sampling.top_p < 1:
            bound = max(bound, nucleus_bound(weights, sampling.top_p))
        if bound <= 0:
            return ids, weights
        kept = weights >= bound
        if np.count_nonzero(kept) > _FEW:
            weights *= kept
            return ids, weights
        places = np.flatnonzero(kept)
        return (places if ids is None else ids[places]), weights[places]


def kth_largest(values: Floats, count: int) -> np.float32:
    """The value that `count` values reach; `count` is from 1 to their number."""
    some = values
    if len(values) > _FEW:
        # A sorted sample says about how low that is; whatever is not lower holds it, if that is enough of them.
        step = -(-len(values) // _SAMPLE)
        sample = np.sort(values[::step])
        rank = count / step
        place = len(sample) - 1 - int(rank + 4 * rank**0.5 + 8)
        near = values[values >= sample[place]] if place >= 0 else values
        some = near if len(near) >= count else values
    return np.float32(np.partition(some, len(some) - count)[len(some) - count])


def nucleus_bound(weights: Floats, share: float) -> np.float32:
    """The largest value such that the weights from it on have at least `share` of the whole. Weights are at most 1."""
    goal = share * float(weights.sum())
    some = weights[np.flatnonzero(weights >= _HEAVY)]
    if len(some) > _FEW or float(some.sum(dtype=np.float64)) < goal:
        some = weights
    sure = 0.0
    while len(some) > _FEW:
        before = len(some)
        some, sure = _narrowed(some, sure, goal)
        if len(some) == before:  # most weights are the same
            break
    ordered = np.sort(some)[::-1]
    sums = sure + np.cumsum(ordered, dtype=np.float64)
    return np.float32(ordered[min(int(np.searchsorted(sums, goal)), len(ordered) - 1)])


def _narrowed(weights: Floats, sure: float, goal: float) -> tuple[Floats, float]:
    """Those of the weights among which the bound of a nucleus is, and the sum of all above them.

    A sorted sample says about where; which side of that it is on, the sums of all say exactly.
    """
    sample = np.sort(weights[:: -(-len(weights) // _SAMPLE)])[::-1]
    sums = np.cumsum(sample, dtype=np.float64)
    share = (goal - sure) / float(weights.sum(dtype=np.float64))
    place = int(np.searchsorted(sums, share * sums[-1]))
    high = sample[max(0, place - len(sample) // 10)]
    low = sample[min(len(sample) - 1, place + len(sample) // 10)]
    above = weights > high
    more = sure + float(np.multiply(weights, above).sum(dtype=np.float64))
    if more >= goal:
        return weights[np.flatnonzero(above)], sure
    between = weights[np.flatnonzero((weights >= low) & ~above)]
    most = more + float(between.sum(dtype=np.float64))
    if most >= goal:
        return between, more
    return weights[np.flatnonzero(weights < low)], most


def _check(best: np.floating[Any]) -> None:
    if not np.isfinite(best):
        raise VerificationFailed(
            "The model's answers hold NaN or infinite numbers.", "Try another backend, or quantize it again."
        )


def _draw(ids: Indices | None, weights: Floats, seed: int, step: int, spare: Words | None = None) -> int:
    """The token whose waiting time, exponential with its weight as the rate, is the shortest.

    Args:
        spare: uint32 [2, at least as many as weights], memory to work in.
    """
    count = len(weights)
    words, other = np.empty((2, count), np.uint32) if spare is None else spare[:, :count]
    words[:] = _numbers(count) if ids is None else ids
    noise(words, seed, step, other)
    places = np.arange(count) if count <= _FEW else _racers(words, weights)
    place = int(places[_times(words[places], weights[places]).argmin()])
    return place if ids is None else int(ids[place])


@functools.lru_cache(maxsize=2)
def _numbers(count: int) -> Words:
    return np.arange(count, dtype=np.uint32)


def _racers(words: Words, weights: Floats) -> Indices:
    """Places among which the winner is: no weight is above 1, so it takes a short time of one's own to win."""
    heavy = weights >= _HEAVY
    count = int(np.count_nonzero(heavy))
    if count > 2 * _FEW:  # any of them will do to begin with
        heavy = heavy[:: count // _FEW]
        first = np.flatnonzero(heavy) * (count // _FEW)
    else:
        first = np.flatnonzero(heavy)
    shortest = float(_times(words[first], weights[first]).min()) if len(first) else math.inf
    # Where all heavy ones run already, the others need a time that is shorter still.
    needed = _words_above(shortest * (1 if count > 2 * _FEW else _HEAVY))
    return np.concatenate([first, np.flatnonzero(words >= needed)])


def _times(words: Words, weights: Floats) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        times: NDArray[np.float64] = -np.log((words + 0.5) * 2.0**-32) / weights  # a weight of 0 waits for ever
    return times


def _words_above(time: float) -> np.uint32:
    """A word such that only it and larger ones give times of at most `time` at weight 1 (a little generous)."""
    return np.uint32(max(0, min(_WORDS - 1, int(math.exp(-time) * _WORDS) - 2)))


def noise(words: Words, seed: int, step: int, spare: Words) -> None:
    """Turn numbers of tokens into words of 32 bits that look independent for every seed, step and token.

    A mixing function with the multipliers 0x7feb352d and 0x846ca68b (found by C. Wellons, 2018) of the token's number,
    shifted by what blake2 makes of seed and step.

    Args:
        spare: as many words, memory to work in.
    """
    digest = hashlib.blake2b(struct.pack("<Qq", seed, step), digest_size=4).digest()
    words *= np.uint32(0x9E3779B1)
    words += np.uint32(int.from_bytes(digest, "little"))
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        words ^= np.right_shift(words, np.uint32(shift), out=spare)
        words *= np.uint32(factor)
    words ^= np.right_shift(words, np.uint32(16), out=spare)
