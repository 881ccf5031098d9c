"""The tuning loop on one linear layer with a known target."""

from __future__ import annotations

import math

import pytest
import torch

from core.errors import Cancelled
from core.model.slices import ParameterSlice
from core.quant import block_tuning
from core.quant.block_tuning import BatchSampler, Tuning, TuningResult, tune_block
from core.quant.grid import new_grid
from core.quant.parameter_grid import ParameterGrid, RowPlaces
from core.schemes import LayerScheme

SAMPLES, TOKENS, WIDTH = 12, 16, 64


class Bench:
    """A block of one layer, its inputs, and what the original makes of them."""

    def __init__(self, bits: int = 3, iterations: int = 40, rate: float | None = None, sym: bool = True) -> None:
        generator = torch.Generator().manual_seed(11)
        self.weight = torch.randn(WIDTH, WIDTH, generator=generator) * 0.1
        # Correlated inputs: rounding each weight to its nearest level is then far from the best choice.
        mix = torch.randn(WIDTH, WIDTH, generator=generator) + 3.0
        self.inputs = torch.randn(SAMPLES, TOKENS, WIDTH, generator=generator) @ mix * 0.1
        self.targets = self.inputs @ self.weight.t()
        self.parameter = torch.nn.Parameter(self.weight.clone(), requires_grad=False)
        step = 1 / max(1, iterations) if rate is None else rate
        self.grid = new_grid(self.weight, LayerScheme(bits, 32, sym), iterations=iterations, rate=step)
        places = RowPlaces(self.weight.shape, [ParameterSlice("weight", None, slice(None), slice(None), False)])
        self.layer = ParameterGrid(self.grid, self.parameter, places, [], step, True)
        self.losses: list[tuple[int, float]] = []

    def tune(self, tuning: Tuning, stop_at: int = -1, odd: tuple[int, float] = (-1, 1.0)) -> TuningResult:
        """Tune the layer; `odd` is a step (from 1) and what its output is multiplied by."""

        def forward(index: torch.Tensor) -> torch.Tensor:
            out = self.inputs[index] @ self.parameter.t()
            at = out.requires_grad and len(self.losses) + 1 == odd[0]
            return out * odd[1] if at else out

        return tune_block(
            [self.layer],
            forward,
            lambda index: self.targets[index],
            SAMPLES,
            tuning,
            lambda iteration, loss: self.losses.append((iteration, loss)),
            lambda: len(self.losses) == stop_at,
        )

    def error(self) -> float:
        with torch.no_grad():
            return (self.inputs @ self.parameter.t() - self.targets).square().mean().item()


@pytest.mark.parametrize("sym", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_tuning_beats_plain_rounding(bits: int, sym: bool) -> None:
    bench = Bench(bits=bits, sym=sym)
    outcome = bench.tune(Tuning(40, 4, 1, 0))
    assert outcome.loss_after < (0.95 if bits == 8 else 0.8) * outcome.loss_before
    assert outcome.best_iteration > 0


def test_no_iterations_is_plain_rounding() -> None:
    bench = Bench(iterations=0)
    outcome = bench.tune(Tuning(0, 4, 1, 0))
    assert outcome.loss_before == outcome.loss_after
    assert bench.losses == []
    assert int(bench.grid.offset.abs().max()) == 0


def test_the_weight_that_is_left_is_the_best_one() -> None:
    bench = Bench()
    outcome = bench.tune(Tuning(40, SAMPLES, 1, 0))
    fixed = torch.arange(8) * SAMPLES // 8
    with torch.no_grad():
        loss = (bench.inputs[fixed] @ bench.parameter.t() - bench.targets[fixed]).square().mean().item()
    assert loss == pytest.approx(outcome.loss_after)


def test_a_step_too_wide_keeps_what_was_better_before() -> None:
    bench = Bench(bits=8, rate=5.0)
    outcome = bench.tune(Tuning(10, 4, 1, 0))
    assert outcome.loss_after <= outcome.loss_before


def test_accumulated_micro_batches_are_one_large_batch() -> None:
    whole, parts = Bench(), Bench()
    whole.tune(Tuning(6, SAMPLES, 1, 3))
    parts.tune(Tuning(6, SAMPLES // 2, 2, 3))
    # The sums differ in the last bits of fp32, and only signs count.
    same = whole.grid.offset == parts.grid.offset
    assert same.float().mean() > 0.99


@pytest.mark.parametrize("split", [2, 4])
def test_a_batch_in_micro_batches_has_the_same_samples(split: int) -> None:
    whole, parts = Bench(), Bench()
    whole.tune(Tuning(6, 4, 2, 3))
    parts.tune(Tuning(6, 4, 2, 3, split))
    same = whole.grid.offset == parts.grid.offset
    assert same.float().mean() > 0.99


def test_the_same_seed_gives_the_same_bits() -> None:
    first, second = Bench(), Bench()
    first.tune(Tuning(20, 4, 1, 5))
    second.tune(Tuning(20, 4, 1, 5))
    assert torch.equal(first.grid.offset, second.grid.offset)
    assert torch.equal(first.grid.scale, second.grid.scale)


def test_a_loss_that_is_not_a_number_ends_in_plain_rounding() -> None:
    bench = Bench()
    bench.targets[:] = torch.nan
    outcome = bench.tune(Tuning(10, 4, 1, 0))
    assert outcome.diverged
    assert (outcome.diverged_at, outcome.best_iteration) == (1, 0)
    assert len(bench.losses) == 1
    assert int(bench.grid.offset.abs().max()) == 0


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_loss_that_is_not_finite_ends_the_tuning_and_the_steps_before_it_count(value: float, accumulate: int) -> None:
    bench, shorter = Bench(), Bench()
    outcome = bench.tune(Tuning(40, 4, accumulate, 0), odd=(15, value))
    assert outcome.diverged
    assert (outcome.diverged_at, outcome.best_iteration) == (15, 14)
    assert outcome.loss_after < outcome.loss_before
    assert len(bench.losses) == 15
    shorter.tune(Tuning(40, 4, accumulate, 0), odd=(16, value))
    assert torch.isfinite(bench.grid.offset).all()
    assert not torch.equal(bench.grid.offset, shorter.grid.offset)


def test_steps_that_did_not_help_are_not_kept_after_a_loss_that_is_not_finite() -> None:
    bench = Bench(bits=8, rate=0.5)
    outcome = bench.tune(Tuning(40, 4, 1, 0), odd=(2, torch.inf))
    assert (outcome.diverged, outcome.diverged_at, outcome.best_iteration) == (True, 2, 0)
    assert outcome.loss_after == outcome.loss_before


def test_tuning_that_stays_finite_has_nothing_to_say() -> None:
    outcome = Bench().tune(Tuning(10, 4, 1, 0))
    assert (outcome.diverged, outcome.diverged_at) == (False, 0)


def test_a_stop_is_heard_between_two_steps() -> None:
    bench = Bench()
    with pytest.raises(Cancelled):
        bench.tune(Tuning(40, 4, 1, 0), stop_at=3)
    assert len(bench.losses) == 3


def test_gradients_are_not_kept() -> None:
    bench = Bench()
    bench.tune(Tuning(3, 4, 1, 0))
    assert bench.parameter.grad is None
    assert not bench.parameter.requires_grad


def test_samples_come_once_a_round_and_a_short_tail_is_dropped() -> None:
    sampler = BatchSampler(10, 4, 1)
    first, second, third = sampler.next(), sampler.next(), sampler.next()
    assert len(set(first.tolist()) | set(second.tolist())) == 8
    assert len(third) == 4


def test_a_batch_larger_than_the_samples_is_all_of_them() -> None:
    assert sorted(BatchSampler(3, 8, 1).next().tolist()) == [0, 1, 2]


@pytest.mark.parametrize(
    ("best", "loss", "replaced"),
    [(1.0, math.nan, False), (1.0, math.inf, False), (math.nan, 2.0, True), (2.0, 1.0, True)],
)
def test_only_a_lower_finite_loss_replaces_the_best_rounding(best: float, loss: float, replaced: bool) -> None:
    assert block_tuning._Best(0, best, []).beaten_by(loss) is replaced
