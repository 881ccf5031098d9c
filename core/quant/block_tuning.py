"""Tuning of the grids of one block by signed gradient descent.

A grid has learned scales and fixed integers (`core.quant.level_grid`), learned scales and integers
(`core.quant.latent_grid`), or rounding offsets and range factors (`core.quant.grid`, SignRound, arXiv 2309.05516). The
loss is the mean squared error between the output of the quantized block on the activations of the quantized model and
the output of the original block on those of the original model. The gradients of a grid have a closed form, so autograd
stores only one gradient, that of the layer in the backward pass.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from core.control import ShouldStop
from core.errors import Cancelled
from core.estimation.costs import FIXED_SAMPLES
from core.quant.expert_steps import ExpertSteps
from core.quant.parameter_grid import ParameterGrid

CHECKS = 10
"""Number of evaluations on the fixed samples; the result of the last step is always evaluated."""


@dataclass(frozen=True)
class Tuning:
    """Settings of the tuning loop.

    Attributes:
        iterations: number of steps T.
        batch: samples per batch; accumulate: batches per step.
        seed: random seed for the order of the samples.
        split: micro-batches per batch, of equal size; they decide the memory, and the result only by rounding.
        devices: number of devices that share each micro-batch.
    """

    iterations: int
    batch: int
    accumulate: int
    seed: int
    split: int = 1
    devices: int = 1

    @property
    def passes(self) -> int:
        """Forward passes per step."""
        return self.accumulate * self.split

    @property
    def several(self) -> bool:
        """True if a gradient is the sum of those of several passes or devices."""
        return self.passes > 1 or self.devices > 1


@dataclass(frozen=True)
class TuningResult:
    """Result of tuning a block.

    Attributes:
        loss_before, loss_after: mean squared errors on the fixed samples, of plain rounding and of the result.
        best_iteration: iteration of the result (0: plain rounding).
        diverged: whether a loss was not finite.
        diverged_at: iteration whose loss was not finite, which ended the tuning; 0 for that of plain rounding.
    """

    loss_before: float
    loss_after: float
    best_iteration: int
    diverged: bool
    diverged_at: int = 0


@dataclass(frozen=True)
class _Best:
    iteration: int
    loss: float
    state: list[tuple[Tensor, ...]]

    def beaten_by(self, loss: float) -> bool:
        """Return whether `loss` is lower; a finite loss is lower than one that is not finite."""
        return math.isfinite(loss) and not self.loss <= loss


class BatchSampler:
    """Random batches of sample indices, without repetition within an epoch; an incomplete last batch is dropped."""

    def __init__(self, samples: int, batch: int, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._samples = samples
        self._batch = min(batch, samples)
        self._order = torch.empty(0, dtype=torch.int64)

    def next(self) -> Tensor:
        """Return the indices of the next batch, int64 [batch]."""
        if len(self._order) < self._batch:
            self._order = torch.randperm(self._samples, generator=self._generator)
        batch, self._order = self._order[: self._batch], self._order[self._batch :]
        return batch


def tune_block(
    layers: list[ParameterGrid],
    forward: Callable[[Tensor], Tensor],
    targets: Callable[[Tensor], Tensor],
    samples: int,
    tuning: Tuning,
    on_loss: Callable[[int, float], None],
    should_stop: ShouldStop,
) -> TuningResult:
    """Tune all layers of a block together; their grids and parameters are then those of the lowest loss.

    Args:
        forward: returns, for sample indices (int64 [batch]), the output [batch, tokens, hidden_size] of the block with
            the parameters of the layers, for the hidden states of the quantized model.
        targets: returns the output of the original block for the same samples.
        samples: number of samples.
        on_loss: receives the iteration (from 1) and its minibatch loss.

    Raises:
        Cancelled: `should_stop` returned true.
    """
    fixed = fixed_batches(samples, max(1, tuning.batch // tuning.split))

    def loss_of(index: Tensor) -> Tensor:
        return (forward(index).float() - targets(index)).square().mean()

    def judge() -> float:
        with torch.no_grad():
            losses = [loss_of(index).item() * len(index) for index in fixed]
        return sum(losses) / sum(len(index) for index in fixed)

    # the parameters of grids with a start have plain rounding
    started = [layer for layer in layers if layer.grid.started]
    for layer in layers:
        if not layer.grid.started:
            _write(layer)
    before = judge()
    for layer in started:
        _write(layer)
    begun = judge() if started else before
    best, odd = _Best(0, begun, []), 0
    tuned = [layer for layer in layers if layer.tuned]
    if tuning.iterations and tuned:
        best, odd = _descend(
            tuned,
            loss_of,
            judge,
            begun,
            BatchSampler(samples, tuning.batch, tuning.seed),
            tuning,
            on_loss,
            should_stop,
        )
    return TuningResult(before, best.loss, best.iteration, odd > 0 or not math.isfinite(before), odd)


def _descend(
    layers: list[ParameterGrid],
    loss_of: Callable[[Tensor], Tensor],
    judge: Callable[[], float],
    before: float,
    sampler: BatchSampler,
    tuning: Tuning,
    on_loss: Callable[[int, float], None],
    should_stop: ShouldStop,
) -> tuple[_Best, int]:
    """Return the state of the lowest loss, and the iteration (from 1) with a loss that is not finite; 0 for none."""
    best, odd = _Best(0, before, _copy(layers)), 0
    every = max(1, tuning.iterations // CHECKS)
    now = _Now()
    # With gradients of several passes or devices, a step needs the whole gradient of a parameter.
    together = {id(layer.parameter) for layer in layers if tuning.several or not ExpertSteps.supported(layer)}
    by_expert = [layer for layer in layers if id(layer.parameter) not in together]
    stepping = ExpertSteps(by_expert, lambda: _schedule(now, tuning)) if by_expert else contextlib.nullcontext()
    by_parameter: dict[int, list[ParameterGrid]] = {}
    for layer in layers:
        if id(layer.parameter) not in together:
            continue
        layer.parameter.requires_grad_(True)
        by_parameter.setdefault(id(layer.parameter), []).append(layer)
    hooks = [
        same[0].parameter.register_post_accumulate_grad_hook(_stepper(same, now, tuning))
        for same in by_parameter.values()
    ]
    try:
        for iteration in range(tuning.iterations):
            if should_stop():
                raise Cancelled("The run was cancelled.")
            now.iteration, total = iteration, 0.0
            for number, batch in enumerate(_micro_batches(sampler, tuning)):
                now.last_part = number == tuning.passes - 1
                with stepping:
                    loss = loss_of(batch)
                total += loss.item()
                if not math.isfinite(total):
                    break  # before the backward pass, so that the grids keep the state of the previous step
                loss.backward()
            on_loss(iteration + 1, total / tuning.passes)
            finite = math.isfinite(total)
            done = iteration + finite
            if not finite or done == tuning.iterations or (done % every == 0 and done * 2 >= tuning.iterations):
                loss_now = judge() if done else before
                if best.beaten_by(loss_now):
                    best = _Best(done, loss_now, _copy(layers))
                finite = finite and math.isfinite(loss_now)
            if not finite:
                odd = iteration + 1
                break
    finally:
        for hook in hooks:
            hook.remove()
        for layer in layers:
            layer.parameter.requires_grad_(False)
            layer.parameter.grad = None
    _restore(layers, best.state)
    return best, odd


def _micro_batches(sampler: BatchSampler, tuning: Tuning) -> Iterator[Tensor]:
    """Return the sample indices of the forward passes of a step."""
    return (part for _ in range(tuning.accumulate) for part in sampler.next().chunk(tuning.split))


@dataclass
class _Now:
    """Position of the loop, for the hooks that autograd calls."""

    iteration: int = 0
    last_part: bool = True


def _stepper(layers: list[ParameterGrid], now: _Now, tuning: Tuning) -> Callable[[Tensor], None]:
    """Return a hook that steps the grids of a parameter as soon as its gradient is complete, and frees the gradient."""

    def hook(parameter: Tensor) -> None:
        if not now.last_part:
            return
        gradient = parameter.grad
        assert gradient is not None
        parameter.grad = None
        units, share = _schedule(now, tuning)
        with torch.no_grad():
            for layer in layers:
                rows = layer.places.read(parameter.data)
                layer.grid.step(layer.places.read(gradient), rows, units, layer.factor_rate * share)
                layer.places.write(parameter.data, rows)

    return hook


def _schedule(now: _Now, tuning: Tuning) -> tuple[int, float]:
    """Return the units by which offsets move, and the fraction of the initial learning rate of range factors."""
    left = tuning.iterations - now.iteration
    return left, left / tuning.iterations


def _write(layer: ParameterGrid) -> None:
    """Write the quantized weights of a grid into the parameter."""
    layer.places.fill(layer.parameter.data, layer.grid.quantize_into)


def fixed_batches(samples: int, batch: int) -> list[Tensor]:
    """Return the indices of the fixed samples, spread evenly over all samples, in micro-batches."""
    count = min(FIXED_SAMPLES, samples)
    index = torch.arange(count) * samples // count
    return list(index.split(min(batch, count)))


def _copy(layers: list[ParameterGrid]) -> list[tuple[Tensor, ...]]:
    return [layer.grid.state() for layer in layers]


def _restore(layers: list[ParameterGrid], state: list[tuple[Tensor, ...]]) -> None:
    for layer, values in zip(layers, state, strict=True):
        layer.grid.restore(values)
        _write(layer)
