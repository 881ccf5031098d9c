"""Sampling parameters, and selection of the next token from logits.

The vocabulary is never sorted as a whole: thresholds are located with the help of a sample, and the draw is the minimum
of one random waiting time per token.
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
"""Arrays up to this size are sorted directly."""
_SAMPLE: Final = 2048
_HEAVY: Final = 0.01
_MIN_TEMPERATURE: Final = 1e-6
"""Lower temperatures are raised to this one, at which the most likely token is practically certain."""
_WORDS: Final = 1 << 32


class TokenSampler:
    """Sampler of the tokens of one answer.

    Each token gets an exponential waiting time that depends only on seed, step and token id, divided by the token's
    probability; the token with the shortest time is selected (the Gumbel-max trick: Gumbel 1954; Maddison, Tarlow and
    Minka 2014, arXiv 1411.0030). This is an exact draw from the distribution, and with the same seed two models with
    similar predictions select mostly the same tokens.
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
        """Select the next token and record it for the penalties.

        Args:
            logits: float32 [vocabulary], on the CPU; not modified.
            barred: token ids that must not be selected.

        Raises:
            VerificationFailed: the logits contain NaN or no finite value.
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
        """Return the token that `next` would select, without recording it."""
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
        """Return the logits after the penalties: a buffer valid until the next call, or `logits` without penalties."""
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
        """Return the ids of the tokens that may be drawn (None for all), and their weights, 1 for the most likely.

        Applies temperature, top-k, top-p and min-p in the order of transformers. The weights are a buffer valid until
        the next call.
        """
        sampling = self._sampling
        if len(self._room) < len(scores):
            self._room = np.empty(len(scores), np.float32)  # allocating for every token would dominate the time
        top = scores.max()
        _check(top)
        ids: Indices | None = None
        if 0 < sampling.top_k < len(scores):
            ids = np.flatnonzero(scores >= kth_largest(scores, sampling.top_k))
            scores = scores[ids]
        weights = np.subtract(scores, top, out=self._room[: len(scores)])
        weights *= np.float32(1 / max(sampling.temperature, _MIN_TEMPERATURE))
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
        indices = np.flatnonzero(kept)
        return (indices if ids is None else ids[indices]), weights[indices]


def kth_largest(values: Floats, count: int) -> np.float32:
    """Return the `count`-th largest of the values, with 1 <= `count` <= len(values)."""
    some = values
    if len(values) > _FEW:
        # A sorted sample gives a lower bound for the result. It is only used if enough values reach it.
        step = -(-len(values) // _SAMPLE)
        sample = np.sort(values[::step])
        rank = count / step
        index = len(sample) - 1 - int(rank + 4 * rank**0.5 + 8)
        near = values[values >= sample[index]] if index >= 0 else values
        some = near if len(near) >= count else values
    return np.float32(np.partition(some, len(some) - count)[len(some) - count])


def nucleus_bound(weights: Floats, share: float) -> np.float32:
    """Return the largest value such that the weights not below it sum to at least `share` of the total.

    Weights must not exceed 1.
    """
    goal = share * float(weights.sum())
    some = weights[np.flatnonzero(weights >= _HEAVY)]
    if len(some) > _FEW or float(some.sum(dtype=np.float64)) < goal:
        some = weights
    above = 0.0
    while len(some) > _FEW:
        before = len(some)
        some, above = _narrowed(some, above, goal)
        if len(some) == before:  # most weights are equal
            break
    ordered = np.sort(some)[::-1]
    sums = above + np.cumsum(ordered, dtype=np.float64)
    return np.float32(ordered[min(int(np.searchsorted(sums, goal)), len(ordered) - 1)])


def _narrowed(weights: Floats, above: float, goal: float) -> tuple[Floats, float]:
    """Return a subset of the weights that contains the bound of the nucleus, and the sum of all weights above it.

    A sorted sample estimates the position of the bound; exact sums then decide on which side it is.

    Args:
        above: sum of the weights that are larger than all of `weights`.
        goal: sum that the nucleus must reach.
    """
    sample = np.sort(weights[:: -(-len(weights) // _SAMPLE)])[::-1]
    sums = np.cumsum(sample, dtype=np.float64)
    share = (goal - above) / float(weights.sum(dtype=np.float64))
    index = int(np.searchsorted(sums, share * sums[-1]))
    high = sample[max(0, index - len(sample) // 10)]
    low = sample[min(len(sample) - 1, index + len(sample) // 10)]
    larger = weights > high
    more = above + float(np.multiply(weights, larger).sum(dtype=np.float64))
    if more >= goal:
        return weights[np.flatnonzero(larger)], above
    between = weights[np.flatnonzero((weights >= low) & ~larger)]
    most = more + float(between.sum(dtype=np.float64))
    if most >= goal:
        return between, more
    return weights[np.flatnonzero(weights < low)], most


def _check(best: np.floating[Any]) -> None:
    if not np.isfinite(best):
        raise VerificationFailed(
            "The model's logits contain NaN or infinite values.", "Try another backend, or quantize it again."
        )


def _draw(ids: Indices | None, weights: Floats, seed: int, step: int, spare: Words | None = None) -> int:
    """Return the token with the shortest waiting time, exponentially distributed with its weight as the rate.

    Args:
        spare: scratch memory, uint32 [2, >= len(weights)].
    """
    count = len(weights)
    words, other = np.empty((2, count), np.uint32) if spare is None else spare[:, :count]
    words[:] = _numbers(count) if ids is None else ids
    noise(words, seed, step, other)
    indices = np.arange(count) if count <= _FEW else _possible_winners(words, weights)
    index = int(indices[_times(words[indices], weights[indices]).argmin()])
    return index if ids is None else int(ids[index])


@functools.lru_cache(maxsize=2)
def _numbers(count: int) -> Words:
    return np.arange(count, dtype=np.uint32)


def _possible_winners(words: Words, weights: Floats) -> Indices:
    """Return indices that include that of the shortest waiting time.

    No weight exceeds 1, so that a token can only win if its unweighted time is shorter than the best time found.
    """
    heavy = weights >= _HEAVY
    count = int(np.count_nonzero(heavy))
    if count > 2 * _FEW:  # a subset is enough for a first bound
        heavy = heavy[:: count // _FEW]
        first = np.flatnonzero(heavy) * (count // _FEW)
    else:
        first = np.flatnonzero(heavy)
    shortest = float(_times(words[first], weights[first]).min()) if len(first) else math.inf
    # If all heavy tokens are included, the others, of lower weight, need a still shorter unweighted time.
    needed = _words_above(shortest * (1 if count > 2 * _FEW else _HEAVY))
    return np.concatenate([first, np.flatnonzero(words >= needed)])


def _times(words: Words, weights: Floats) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        times: NDArray[np.float64] = -np.log((words + 0.5) * 2.0**-32) / weights  # infinite for a weight of 0
    return times


def _words_above(time: float) -> np.uint32:
    """Return a lower bound, with a small margin, of the words that give times of at most `time` at weight 1."""
    return np.uint32(max(0, min(_WORDS - 1, int(math.exp(-time) * _WORDS) - 2)))


def noise(words: Words, seed: int, step: int, spare: Words) -> None:
    """Hash token ids in place into 32-bit words that are pseudo-random in seed, step and token id.

    The words are the token ids, offset by the blake2 hash of seed and step, after a mixing function with the
    multipliers 0x7feb352d and 0x846ca68b (C. Wellons, 2018).

    Args:
        words: token ids, uint32.
        spare: scratch memory of the same shape.
    """
    digest = hashlib.blake2b(struct.pack("<Qq", seed, step), digest_size=4).digest()
    words *= np.uint32(0x9E3779B1)
    words += np.uint32(int.from_bytes(digest, "little"))
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        words ^= np.right_shift(words, np.uint32(shift), out=spare)
        words *= np.uint32(factor)
    words ^= np.right_shift(words, np.uint32(16), out=spare)
