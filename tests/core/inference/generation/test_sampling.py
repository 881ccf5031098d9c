"""Tests of sampling against transformers' logits processors, and of the draws against their probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from core.errors import BadInput, VerificationFailed
from core.inference.generation import sampling as module
from core.inference.generation.sampling import TokenSampler, kth_largest, noise, nucleus_bound
from core.inference.generation.settings import Sampling


def spread(size: int, width: float, seed: int) -> torch.Tensor:
    """Return distinct logits."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randperm(size, generator=generator).float() / size
    return torch.erfinv(steps * 1.8 - 0.9) * width


def expected(sampling: Sampling, logits: torch.Tensor, seen: list[int]) -> torch.Tensor:
    """Return the probabilities computed by transformers."""
    steps = LogitsProcessorList()
    if sampling.repetition_penalty != 1.0:
        steps.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    steps.append(TemperatureLogitsWarper(float(sampling.temperature)))
    if sampling.top_k:
        steps.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        steps.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        steps.append(MinPLogitsWarper(sampling.min_p))
    return torch.softmax(steps(torch.tensor([seen]), logits[None].clone())[0].double(), 0)  # type: ignore[arg-type]


def found(sampling: Sampling, logits: torch.Tensor, seen: list[int]) -> torch.Tensor:
    """Return the probabilities used by `TokenSampler`."""
    sampler = TokenSampler(sampling, 0, seen)
    ids, weights = sampler.candidates(sampler.penalised(logits.numpy()))
    whole = torch.zeros(len(logits), dtype=torch.float64)
    indices = torch.arange(len(logits)) if ids is None else torch.as_tensor(ids)
    whole[indices] = torch.as_tensor(weights).double()
    return whole / whole.sum()


@given(
    size=st.sampled_from([7, 300, 5000, 20_000]),
    width=st.sampled_from([0.01, 1.0, 4.0, 12.0]),
    seed=st.integers(0, 1000),
    temperature=st.sampled_from([0.2, 0.7, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 5, 50, 6000]),
    top_p=st.sampled_from([0.1, 0.5, 0.9, 0.99, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.5]),
    penalty=st.sampled_from([0.8, 1.0, 1.3]),
)
def test_probabilities_are_those_of_transformers(
    size: int, width: float, seed: int, penalty: float, **rest: Any
) -> None:
    sampling = Sampling(repetition_penalty=penalty, **rest)
    logits = spread(size, width, seed)
    seen = [1, 3, 3, 6]
    ours, theirs = found(sampling, logits, seen), expected(sampling, logits, seen)
    # float32 sums in a different order: the last token of the nucleus may differ. Probabilities below the range of
    # float32 are ignored.
    odd = ((ours > 0) != (theirs > 0)) & (torch.maximum(ours, theirs) > 1e-30)
    assert int(odd.sum()) <= 1 + size // 1000
    assert float(odd.double() @ torch.maximum(ours, theirs)) <= float(ours.max()) * (1 + size // 1000)
    if not odd.any():
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-9)


@given(size=st.integers(1, 9000), count=st.integers(1, 9000), seed=st.integers(0, 99), steps=st.integers(1, 10**6))
def test_the_kth_largest_equals_that_of_the_sorted_values(size: int, count: int, seed: int, steps: int) -> None:
    values = np.random.default_rng(seed).integers(0, steps, size).astype(np.float32)
    count = min(count, size)
    assert kth_largest(values, count) == np.sort(values)[-count]


@given(
    size=st.integers(1, 20_000),
    share=st.floats(0.001, 0.999),
    seed=st.integers(0, 99),
    power=st.sampled_from([0, 1, 9, 60]),
)
def test_the_nucleus_is_minimal(size: int, share: float, seed: int, power: int) -> None:
    weights = np.random.default_rng(seed).random(size).astype(np.float32)
    weights = (weights / weights.max()) ** power
    bound = nucleus_bound(weights, share)
    whole = weights.sum(dtype=np.float64)
    assert weights[weights >= bound].sum(dtype=np.float64) >= (share - 1e-5) * whole
    assert weights[weights > bound].sum(dtype=np.float64) <= (share + 1e-5) * whole


@pytest.mark.parametrize("size", [50, 6000])
def test_draws_follow_the_probabilities(size: int) -> None:
    logits = torch.full((size,), -6.0)
    wanted = torch.tensor([0.4, 0.3, 0.2, 0.1])
    logits[[3, 11, 29, 48]] = wanted.log()
    if size > 50:
        logits -= 10 * (logits == -6.0)
    sampler = TokenSampler(Sampling(temperature=1.0), 7)
    draws = 4000
    counts = torch.bincount(torch.tensor([sampler.next(logits) for _ in range(draws)]), minlength=size)
    probabilities = logits.double().softmax(0)
    expected_counts = probabilities * draws
    big = expected_counts > 5
    chi = ((counts - expected_counts)[big] ** 2 / expected_counts[big]).sum()
    assert float(chi) < 20 + 2 * int(big.sum())


def test_draws_among_equal_logits_are_uniform() -> None:
    logits = torch.zeros(8192)
    sampler = TokenSampler(Sampling(temperature=1.0), 3)
    draws = torch.tensor([sampler.next(logits) for _ in range(3000)])
    counts = torch.bincount(draws // 1024, minlength=8).double()
    assert float(((counts - 375) ** 2 / 375).sum()) < 30  # 7 degrees of freedom
    assert len(set(draws.tolist())) > 2200  # 3000 of 8192 with repetition: about 2500 different ones


def test_the_same_seed_gives_the_same_draws() -> None:
    logits = spread(5000, 1.0, 1)

    def draws(seed: int) -> list[int]:
        sampler = TokenSampler(Sampling(temperature=1.0), seed)
        return [sampler.next(logits) for _ in range(20)]

    assert draws(4) == draws(4)
    assert draws(4) != draws(5)


def test_similar_logits_give_mostly_the_same_draws() -> None:
    """A comparison with the same seed shows the difference between the models, not chance."""
    first = spread(5000, 4.0, 1)
    second = first + 0.01 * spread(5000, 1.0, 2)
    one, other = (TokenSampler(Sampling(temperature=1.0), 5) for _ in range(2))
    same = sum(one.next(first) == other.next(second) for _ in range(200))
    assert same >= 190


def test_tokens_of_low_probability_can_be_drawn() -> None:
    """Tokens excluded from the first bound can still have the shortest waiting time."""
    weights = np.random.default_rng(3).random(9000).astype(np.float32) ** 40
    weights /= weights.max()
    for step in range(200):
        words = np.arange(9000, dtype=np.uint32)
        noise(words, 11, step, np.empty_like(words))
        assert module._draw(None, weights, 11, step) == module._times(words, weights).argmin()


def test_temperature_zero_selects_the_most_likely_token() -> None:
    logits = spread(5000, 1.0, 9)
    assert TokenSampler(Sampling(), 0).next(logits) == int(logits.argmax())


def test_a_very_low_temperature_selects_the_most_likely_token() -> None:
    logits = spread(5000, 1.0, 9)
    assert TokenSampler(Sampling(temperature=1e-30), 0).next(logits) == int(logits.argmax())


def test_penalties_count_the_tokens_of_the_answer() -> None:
    logits = torch.tensor([3.0, 2.5, 0.0])
    sampler = TokenSampler(Sampling(presence_penalty=0.2, frequency_penalty=0.4), 0, prompt=[0, 0])
    assert [sampler.next(logits) for _ in range(3)] == [0, 1, 0]
    np.testing.assert_allclose(sampler.penalised(logits.numpy()), [3 - 0.2 - 0.8, 2.5 - 0.6, 0], rtol=1e-6)


def test_the_repetition_penalty_counts_the_prompt_too() -> None:
    sampler = TokenSampler(Sampling(repetition_penalty=2.0), 0, prompt=[0, 2])
    np.testing.assert_allclose(sampler.penalised(np.array([4, 3, -1], np.float32)), [2, 3, -2])
    assert sampler.next(torch.tensor([4.0, 3.0, -1.0])) == 1
    np.testing.assert_allclose(sampler.penalised(np.array([4, 3, -1], np.float32)), [2, 1.5, -2])


def test_logits_are_not_changed() -> None:
    logits = spread(5000, 1.0, 9)
    kept = logits.clone()
    sampler = TokenSampler(Sampling(temperature=0.5, top_p=0.9, repetition_penalty=1.2, presence_penalty=1), 0, [1])
    for _ in range(3):
        sampler.next(logits)
    assert torch.equal(logits, kept)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_are_an_error(bad: float, temperature: float) -> None:
    logits = torch.zeros(10)
    logits[3] = bad
    with pytest.raises(VerificationFailed):
        TokenSampler(Sampling(temperature=temperature), 0).next(logits)


def test_tokens_of_probability_zero_are_never_drawn() -> None:
    logits = torch.full((5000,), -torch.inf)
    logits[17] = 1.0
    assert TokenSampler(Sampling(temperature=1.0, top_k=20, top_p=0.9), 0).next(logits) == 17


@pytest.mark.parametrize(
    "values",
    [
        {"max_tokens": 0}, {"temperature": -1}, {"top_p": 0}, {"top_k": -1}, {"min_p": 2}, {"temperature": "hot"},
        {"max_tokens": 1.5}, {"temperature": float("nan")}, {"stop": ("",)}, {"stop": "no"}, {"stop": (1,)},
        {"frequency_penalty": 3}, {"seed": 2**70}, {"top_k": True}, {"stop": ("x",) * 65},
        {"min_tokens": -1}, {"min_tokens": 9, "max_tokens": 8}, {"stop_token_ids": (-1,)}, {"stop_token_ids": ("a",)},
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        Sampling(**values)


def test_a_seed_is_drawn_if_none_is_given() -> None:
    assert len({Sampling(seed=None).drawn_seed() for _ in range(4)}) > 1
    assert Sampling(seed=5).drawn_seed() == 5
