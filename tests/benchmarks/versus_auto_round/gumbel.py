"""The method of GSQ (arXiv 2604.18556) for the weights of one layer: a start by GPTQ, and a Gumbel-softmax relaxation.

Written from the paper and from the behavior of the authors' program (repository IST-DASLab/GSQ, commit 03fc164).
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

DAMPING = 0.1
"""Share of the mean diagonal that is added to the diagonal of the Gram matrix."""
NORM, SHRINKS = 2.4, 80
"""Exponent of the error in the search of scales, and number of scales that are tried, each 1 % of the range smaller."""
DEVIATION, STRENGTH = 0.01, 6.0
"""Standard deviation of the noise of the first logits, and preference of the start relative to it."""
TEMPERATURES, SHARPNESS = (2.0, 0.05), (100.0, 500.0)
"""First and last temperature, and first and last factor of the logits; both change linearly with the step."""
LOGIT_RATE, SCALE_RATE, DECAY = 5e-5, 4e-4, 1.0
"""Learning rates for STEPS steps: of the logits, and of the scales relative to their mean in the layer; and the weight
decay of the logits. The authors take 1e-4 or 2e-4 for the logits; here both were chosen for a small error
on samples that were held out (block 12 of SmolLM2-135M, 2 bits, 100 steps of 2 x 256 tokens)."""
STEPS = 640
"""Steps of the authors: 10 passes over 4,096 samples in batches of 64."""
ALONE_STEPS = 2000
"""Steps of the authors for queries and keys."""
ALONE_RATE = 4.0
"""Learning rates for queries and keys relative to those above: for the logits the authors' rate, as no sample of text
disturbs the gradient."""
LAST_RATE = 0.1
"""Learning rate after the last step relative to that of the first, along a cosine."""
_MEAN, _MOMENTUM = 0.9, 0.95
_SHIFTS = (-2.0, -1.0, 0.0, 1.0, 2.0)
"""Levels that a weight may have relative to the start, above 2 bits."""


def search_scale(weight: Tensor, bits: int) -> Tensor:
    """Return the scale of each row, of either sign, with the smallest error of rounding to nearest, float32 [out, 1].

    Args:
        weight: float32 [out, group].
    """
    half = 2 ** (bits - 1)
    largest = weight.abs().amax(dim=1, keepdim=True)
    largest = torch.where(largest == 0, torch.ones_like(largest), largest)
    best, scale = torch.full_like(largest, math.inf), largest
    for number in range(SHRINKS):
        size = largest * (1 - number / 100) * 2 / (2 * half - 1)
        for candidate in (size, -size):
            levels = (weight / candidate).round_().clamp_(-half, half - 1)
            error = levels.mul_(candidate).sub_(weight).abs_().pow_(NORM).sum(dim=1, keepdim=True)
            better = error < best
            best, scale = torch.where(better, error, best), torch.where(better, candidate, scale)
    return scale


def damped(gram: Tensor) -> Tensor:
    """Return a Gram matrix that is positive definite: with DAMPING, and with 1 for inputs that were always zero."""
    gram = gram.clone()
    diagonal = gram.diagonal()
    diagonal.masked_fill_(diagonal == 0, 1.0)
    diagonal.add_(DAMPING * diagonal.mean())
    return gram


def gptq(weight: Tensor, gram: Tensor, bits: int, group: int) -> tuple[Tensor, Tensor]:
    """Return levels [out, in], from -2^(bits - 1), and scales [out, groups], both float32, by GPTQ.

    Columns are rounded in their order. The scales of a group are searched when its first column is reached, in the
    weights with the errors until then.

    Args:
        weight: float32 [out, in].
        gram: float32 [in, in].
    """
    half = 2 ** (bits - 1)
    upper = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped(gram))), upper=True)
    work = weight.clone()
    work[:, gram.diagonal() == 0] = 0
    levels, scales = torch.empty_like(work), []
    for start in range(0, weight.shape[1], group):
        part, end = work[:, start : start + group], start + group
        scale = search_scale(part, bits)
        errors = torch.empty_like(part)
        for column in range(part.shape[1]):
            place = start + column
            level = (part[:, column : column + 1] / scale).round_().clamp_(-half, half - 1)
            levels[:, place : place + 1] = level
            error = (part[:, column : column + 1] - level * scale) / upper[place, place]
            part[:, column + 1 :].addmm_(error, upper[place : place + 1, place + 1 : end], alpha=-1)
            errors[:, column : column + 1] = error
        work[:, end:].addmm_(errors, upper[start:end, end:], alpha=-1)
        scales.append(scale)
    return levels, torch.cat(scales, dim=1)


class Noise:
    """Numbers with Gumbel's distribution: excerpts, at random places, of a table that is computed once.

    Drawing all numbers of each sample would take longer than all other operations of a step.
    """

    def __init__(self, seed: int, size: int = 1 << 23) -> None:
        self._generator = Generator().manual_seed(seed)
        # minus the logarithm of an exponential variable has Gumbel's distribution
        self._table = torch.empty(size).exponential_(generator=self._generator).log_().neg_()

    def draw(self, shape: torch.Size) -> Tensor:
        """Return float32 numbers that must not be changed."""
        count, size = shape.numel(), len(self._table)
        if 2 * count > size:
            self._table = torch.empty(2 * count).exponential_(generator=self._generator).log_().neg_()
            size = len(self._table)
        first = int(torch.randint(size - count + 1, (1,), generator=self._generator))
        return self._table[first : first + count].view(shape)

    def normal(self, shape: torch.Size) -> Tensor:
        """Return float32 numbers with the standard normal distribution."""
        return torch.randn(shape, generator=self._generator)


class RelaxedWeight:
    """A weight whose levels are drawn from learned distributions, relaxed to weighted means of the candidates.

    At 2 bits the candidates are all levels; above, those of the start and the two on either side of it.

    Args:
        levels: float32 [out, in], those of the start.
        scale: float32 [out, groups].
        noise: source of the samples.
    """

    def __init__(self, levels: Tensor, scale: Tensor, bits: int, noise: Noise) -> None:
        half = 2 ** (bits - 1)
        self.base = torch.zeros_like(levels) if bits == 2 else levels
        self.candidates = (-2.0, -1.0, 0.0, 1.0) if bits == 2 else _SHIFTS
        values = torch.tensor(self.candidates).view(-1, 1, 1)
        reached = self.base + values
        possible = (reached >= -half) & (reached < half)
        near = (-0.5 * (reached - levels) ** 2) * possible
        near -= near.sum(dim=0, keepdim=True) / possible.sum(dim=0, keepdim=True)
        self.logits = (DEVIATION * (noise.normal(near.shape) + STRENGTH * near)).masked_fill_(~possible, -math.inf)
        self.scale, self._scale_step = scale.clone(), float(scale.abs().mean())
        self._noise = noise
        self._momenta = (torch.zeros_like(self.logits), torch.zeros_like(scale))
        self._gradients = (torch.zeros_like(self.logits), torch.zeros_like(scale))
        self._likely = torch.empty_like(self.logits)
        self._mean = torch.empty_like(levels)
        self._slope = 0.0

    def draw(self, progress: float) -> Tensor:
        """Return a sample of the relaxed weight, float32 [out, in].

        Args:
            progress: of the training, from 0 to 1.
        """
        temperature, sharpness = (first + (last - first) * progress for first, last in (TEMPERATURES, SHARPNESS))
        self._slope = sharpness / temperature
        disturbed = torch.add(self._noise.draw(self.logits.shape), self.logits, alpha=sharpness).div_(temperature)
        torch.softmax(disturbed, dim=0, out=self._likely)
        self._mean.zero_()
        for value, likely in zip(self.candidates, self._likely, strict=True):
            self._mean.add_(likely, alpha=value)
        return (self.base + self._mean).view(*self.scale.shape, -1).mul_(self.scale.unsqueeze(-1)).view_as(self.base)

    def collect(self, gradient: Tensor) -> None:
        """Add the gradients for that of the last sample, float32 [out, in]."""
        logits, scales = self._gradients
        grouped = (*self.scale.shape, -1)
        scales += ((self.base + self._mean) * gradient).view(grouped).sum(dim=-1)
        by_mean = (gradient.view(grouped) * (self._slope * self.scale.unsqueeze(-1))).view_as(gradient)
        for number, value in enumerate(self.candidates):
            logits[number].addcmul_(self._likely[number] * (value - self._mean), by_mean)

    def step(self, share: float) -> None:
        """Apply one step of Lion (arXiv 2302.06675) to the logits and scales, and clear the gradients.

        Args:
            share: factor of the learning rates.
        """
        rates = (LOGIT_RATE * share, SCALE_RATE * self._scale_step * share)
        values = (self.logits, self.scale)
        for value, momentum, gradient, rate, decay in zip(
            values, self._momenta, self._gradients, rates, (DECAY, 0.0), strict=True
        ):
            direction = torch.lerp(gradient, momentum, _MEAN).sign_()
            value.mul_(1 - rate * decay).sub_(direction, alpha=rate)
            momentum.lerp_(gradient, 1 - _MOMENTUM)
            gradient.zero_()

    def hard(self) -> tuple[Tensor, Tensor]:
        """Return the most likely levels [out, in] and the scales [out, groups] as float16 values, both float32."""
        levels = self.base + torch.tensor(self.candidates)[self.logits.argmax(dim=0)]
        return levels, self.scale.half().float()


def rate_share(step: int, steps: int) -> float:
    """Return the factor of the learning rates in a step, whose sum over all steps is that of the authors' schedule."""
    cosine = 1 + math.cos(math.pi * step / max(1, steps - 1))
    return (LAST_RATE + 0.5 * (1 - LAST_RATE) * cosine) * STEPS / steps


def values_of(levels: Tensor, scale: Tensor) -> Tensor:
    """Return the weight, float32 [out, in], of levels [out, in] and scales [out, groups]."""
    return (levels.view(*scale.shape, -1) * scale.unsqueeze(-1)).view_as(levels)


def refine(weight: Tensor, relaxed: RelaxedWeight, gram: Tensor, steps: int) -> None:
    """Train a relaxed weight on the error of the layer's outputs under the Gram matrix of its inputs.

    The authors train the queries and keys in this way, with constant learning rates and ALONE_STEPS steps; with fewer
    steps, the rates are higher.

    Args:
        weight: float32 [out, in].
        gram: float32 [in, in].
    """
    gram = damped(gram)
    for step in range(steps):
        error = relaxed.draw(step / max(1, steps - 1)).sub_(weight)
        relaxed.collect(error @ gram)
        relaxed.step(ALONE_RATE * ALONE_STEPS / steps)
