"""Tuning the rounding of one block by signed gradient descent (SignRound, arXiv 2309.05516).

The loss is the mean squared error between what the quantized block makes of the quantized model's activations and
what the original block made of the original model's. Gradients of the rounding are closed forms (`core.quant.grid`),
so autograd keeps nothing per weight but the gradient of the layer at hand. Knows a block as a function and its
grids; not where inputs come from or results go.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from core.control import ShouldStop
from core.errors import Cancelled
from core.model.linear import TunedLinear
from core.quant import grid as grids
from core.quant.grid import Grid

FIXED_SAMPLES = 8
"""Samples that every candidate is judged on. The best of minibatch losses would partly pick an easy minibatch."""
CHECKS = 10
"""How often a candidate is judged; in the last step also, which minibatch losses never score."""


@dataclass
class TunedLayer:
    """A layer of the block while it is tuned: its grid, its module, and the first step of its range factors."""

    grid: Grid
    module: TunedLinear
    factor_rate: float


@dataclass(frozen=True)
class Tuning:
    """What the loop needs to know.

    Attributes:
        iterations: steps T.
        batch: samples of one micro-batch; accumulate: micro-batches of one step.
        seed: of the order of samples.
    """

    iterations: int
    batch: int
    accumulate: int
    seed: int


@dataclass(frozen=True)
class TuningResult:
    """How the tuning of a block came out.

    Attributes:
        loss_before, loss_after: mean squared errors on the fixed samples, of plain rounding and of what was kept.
        best_iteration: the iteration that was kept (0: as rounded).
        diverged: a loss was not finite.
        diverged_at: the iteration of that loss, which ended the tuning; 0 where it was that of plain rounding.
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
    state: list[tuple[Tensor, Tensor, Tensor]]

    def beaten_by(self, loss: float) -> bool:
        """Whether `loss` is lower; any finite one is lower than one that is not finite."""
        return math.isfinite(loss) and not self.loss <= loss


class BatchSampler:
    """Batches of sample numbers: shuffled, without repeats in a round, an incomplete tail dropped."""

    def __init__(self, samples: int, batch: int, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._samples = samples
        self._batch = min(batch, samples)
        self._order = torch.empty(0, dtype=torch.int64)

    def next(self) -> Tensor:
        if len(self._order) < self._batch:
            self._order = torch.randperm(self._samples, generator=self._generator)
        batch, self._order = self._order[: self._batch], self._order[self._batch :]
        return batch


def tune_block(
    layers: list[TunedLayer],
    forward: Callable[[Tensor], Tensor],
    inputs: Callable[[Tensor], Tensor],
    targets: Callable[[Tensor], Tensor],
    samples: int,
    tuning: Tuning,
    on_loss: Callable[[int, float], None],
    should_stop: ShouldStop,
) -> TuningResult:
    """Tune all layers of a block together; afterwards their grids and module weights are the best that was seen.

    Args:
        forward: hidden states [batch, tokens, width] to the block's output, through the layers' modules.
        inputs, targets: from sample numbers (int64 [batch]) to hidden states of the quantized model, and to what the
            original block made of its own.
        samples: how many there are.
        on_loss: told the iteration (from 1) and its minibatch loss.

    Raises:
        Cancelled: `should_stop` said so.
    """
    fixed = _fixed_batches(samples, tuning.batch)

    def loss_of(index: Tensor) -> Tensor:
        return (forward(inputs(index)).float() - targets(index)).square().mean()

    def judge() -> float:
        with torch.no_grad():
            losses = [loss_of(index).item() * len(index) for index in fixed]
        return sum(losses) / sum(len(index) for index in fixed)

    for layer in layers:
        grids.quantize_into(layer.grid, layer.module.weight)
    before = judge()
    best, odd = _Best(0, before, []), 0
    if tuning.iterations:
        best, odd = _descend(
            layers,
            loss_of,
            judge,
            before,
            BatchSampler(samples, tuning.batch, tuning.seed),
            tuning,
            on_loss,
            should_stop,
        )
    return TuningResult(before, best.loss, best.iteration, odd > 0 or not math.isfinite(before), odd)


def _descend(
    layers: list[TunedLayer],
    loss_of: Callable[[Tensor], Tensor],
    judge: Callable[[], float],
    before: float,
    sampler: BatchSampler,
    tuning: Tuning,
    on_loss: Callable[[int, float], None],
    should_stop: ShouldStop,
) -> tuple[_Best, int]:
    """The best that was seen, and the iteration (from 1) whose loss was not finite and ended the descent; 0: none."""
    best, odd = _Best(0, before, _copy(layers)), 0
    every = max(1, tuning.iterations // CHECKS)
    now = _Now()
    for layer in layers:
        layer.module.weight.requires_grad_(True)
    hooks = [layer.module.weight.register_post_accumulate_grad_hook(_stepper(layer, now, tuning)) for layer in layers]
    try:
        for iteration in range(tuning.iterations):
            if should_stop():
                raise Cancelled("The run was cancelled.")
            now.iteration, total = iteration, 0.0
            for part in range(tuning.accumulate):
                now.last_part = part == tuning.accumulate - 1
                loss = loss_of(sampler.next())
                total += loss.item()
                if not math.isfinite(total):
                    break  # before its gradient reaches the grids: they are still those of the step before
                loss.backward()
            on_loss(iteration + 1, total / tuning.accumulate)
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
            layer.module.weight.requires_grad_(False)
            layer.module.weight.grad = None
    _restore(layers, best.state)
    return best, odd


@dataclass
class _Now:
    """Where the loop is, for the hooks that autograd calls."""

    iteration: int = 0
    last_part: bool = True


def _stepper(layer: TunedLayer, now: _Now, tuning: Tuning) -> Callable[[Tensor], None]:
    """A hook that steps a layer as soon as its gradient is complete, and frees the gradient."""

    def hook(weight: Tensor) -> None:
        if not now.last_part:
            return
        gradient = weight.grad
        assert gradient is not None
        weight.grad = None
        left = tuning.iterations - now.iteration
        with torch.no_grad():
            grids.step(layer.grid, gradient, weight.data, left, layer.factor_rate * left / tuning.iterations)

    return hook


def _fixed_batches(samples: int, batch: int) -> list[Tensor]:
    """The fixed samples, spread over all, in micro-batches."""
    count = min(FIXED_SAMPLES, samples)
    index = torch.arange(count) * samples // count
    return list(index.split(min(batch, count)))


def _copy(layers: list[TunedLayer]) -> list[tuple[Tensor, Tensor, Tensor]]:
    return [(x.grid.offset.clone(), x.grid.min_scale.clone(), x.grid.max_scale.clone()) for x in layers]


def _restore(layers: list[TunedLayer], state: list[tuple[Tensor, Tensor, Tensor]]) -> None:
    for layer, (offset, low, high) in zip(layers, state, strict=True):
        grid = layer.grid
        grid.offset, grid.min_scale, grid.max_scale = offset, low, high
        grids.set_scales(grid)
        grids.quantize_into(grid, layer.module.weight)
