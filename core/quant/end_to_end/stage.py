"""The end-to-end stage: the scales of all layers and the norms are learned together, after the last block.

The loss is the KL divergence of the quantized model's predictions to those of the original on the calibration text.
Blocks are tuned one by one on the outputs of the block, which weights all errors equally; this stage weights them by
their effect on the predictions. The integers stay fixed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from core.control import Control, check_stop
from core.estimation.run_bytes import samples_per_step
from core.formats.stored import FormatPlan, StoredLayer
from core.model.block_runner import BlockChain
from core.model.tree import LayerPlan
from core.quant.block_tuning import BatchSampler, fixed_batches
from core.quant.blocks import BlockJob
from core.quant.end_to_end.adam import Adam
from core.quant.end_to_end.heads import Heads, open_heads
from core.quant.end_to_end.kept_blocks import KeptBlock
from core.quant.end_to_end.norms import learned_norms
from core.quant.end_to_end.student import LearnedScales, Student, StudentBlock
from core.quant.level_grid import LevelGrid
from core.quant.sample_activations import SampleActivations
from core.spec import JobSpec

_SCALE_RATE = {2: 2e-3, 3: 2e-3, 4: 3e-4, 5: 2e-4, 6: 1e-4, 8: 3e-5}
"""Learning rate of the factors of scales by bits. Higher ones reduced the divergence of a model with 135 M weights less
after 60 steps."""
_NORM_SHARE = 0.5
"""Learning rate of norms relative to that of the scales in their block."""
_WARM_UP = 20
"""One step in this number is part of the linear increase of the learning rate at the start."""


@dataclass(frozen=True)
class EndToEndResult:
    """Result of the stage.

    Attributes:
        steps: number of steps.
        kept: the result was kept: the divergence on the fixed calibration samples is lower than before.
        kl_before, kl_after: mean KL divergence to the original on the fixed calibration samples, in nats per token,
            before the first and after the last step.
        heldout_kl_before, heldout_kl_after: the same on the held-out windows; after the stage, for the model that is
            written.
        norms: names of the norms that were changed.
        seconds: duration of the steps.
    """

    steps: int
    kept: bool
    kl_before: float
    kl_after: float
    heldout_kl_before: float
    heldout_kl_after: float
    norms: tuple[str, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the entry of the report."""
        return {**asdict(self), "norms": list(self.norms)}


@dataclass(frozen=True)
class LearnedModel:
    """The model after the stage.

    Attributes:
        result: figures for the report.
        tensors: changed norms by their names in the checkpoint, in its dtypes.
        outside: changed norms outside the blocks by their names in the model.
    """

    result: EndToEndResult
    tensors: Mapping[str, Tensor]
    outside: Mapping[str, Tensor]


def obstacle(spec: JobSpec, chain: BlockChain, plans: Sequence[LayerPlan]) -> str:
    """Return the reason why the stage cannot run, as a sentence without its subject; "" if it can."""
    if chain.varies or any(chain.needs) or chain.skeleton.shared_parameters:
        name = chain.skeleton.tree.architecture or type(chain.skeleton.model).__name__
        return f"{name} passes more than hidden states from block to block"
    if not any(item.scheme.quantized and item.linear.block >= 0 for item in plans):
        return "no layer of a block is quantized"
    return ""


def learn(
    job: BlockJob,
    kept: Sequence[KeptBlock],
    head: StoredLayer | None,
    formats: Sequence[FormatPlan],
    calibration: SampleActivations,
    heldout: SampleActivations,
    on_step: Callable[[int, float], None],
    control: Control,
) -> LearnedModel:
    """Learn the scales in `kept` and the norms; the held-out activations are then those of the learned model.

    Args:
        head: the quantized head; None for that of the original.
        formats: plans of the outputs.
        calibration, heldout: activations after the last block.
        on_step: receives the step (from 1) and the divergence on its samples.

    Raises:
        Cancelled: a stop was requested.
    """
    skeleton, device = job.skeleton, job.resolved.torch_device
    blocks = [_block(job, number, block, formats) for number, block in enumerate(kept)]
    outside = learned_norms(skeleton, "", formats, device)
    student = Student(job, blocks, job.resolved.resident)
    norms = [*outside, *(norm for block in blocks for norm in block.norms)]
    with open_heads(job, head, outside, student.resident) as heads:
        lesson = _Lesson(student, heads, calibration)
        unseen_before = _mean_divergence(job, heads, heldout)
        before = lesson.judge()
        start = [_stored_state(job, scales, number) for number, scales in enumerate(_scales(blocks))]
        begun = time.monotonic()
        lesson.run(on_step, control)
        seconds = time.monotonic() - begun
        after, unseen_after = lesson.judge(), unseen_before
        student.unload()
        better = after < before
        if better:
            _advance(student, heldout)
            unseen_after = _mean_divergence(job, heads, heldout)
            student.unload()
        else:
            for scales, state in zip(_scales(blocks), start, strict=True):
                scales.grid.restore(state)
            for norm in norms:
                norm.value.copy_(norm.start)
    changed = {norm.tensor: norm.stored.cpu() for norm in norms if not torch.equal(norm.stored.cpu(), norm.start)}
    names = tuple(sorted(changed))
    steps = job.spec.recipe.end_to_end
    result = EndToEndResult(steps, better, before, after, unseen_before, unseen_after, names, seconds)
    return LearnedModel(result, changed, {norm.parameter: norm.stored for norm in outside})


@dataclass(frozen=True)
class _Lesson:
    """The student, and the predictions of the original from which it learns."""

    student: Student
    heads: Heads
    calibration: SampleActivations

    def judge(self) -> float:
        """Return the mean divergence on the fixed samples, in nats per token."""
        batches = fixed_batches(len(self.calibration.tokens), self.student.job.resolved.micro_batch)
        tokens = [self.calibration.tokens[index] for index in batches]
        outputs = self.student.outputs(self.calibration.calls, [self.student.inputs(part) for part in tokens])
        total = sum(
            self.heads.divergence(self._original(index), output, part)
            for index, output, part in zip(batches, outputs, tokens, strict=True)
        )
        return total / sum(part.numel() for part in tokens)

    def run(self, on_step: Callable[[int, float], None], control: Control) -> None:
        """Run all steps."""
        job = self.student.job
        steps = job.spec.recipe.end_to_end
        sampler = BatchSampler(len(self.calibration.tokens), samples_per_step(job.spec.recipe), job.spec.seed)
        for step in range(steps):
            control.wait_while_paused()
            check_stop(job.should_stop)
            divergence = self._step(sampler.next(), _schedule(step, steps))
            on_step(step + 1, divergence)
            if not math.isfinite(divergence):
                break  # `judge` is then not finite either, and the scales before the stage are kept

    def _step(self, index: Tensor, share: float) -> float:
        """Apply one step on some samples, and return their mean divergence.

        Args:
            share: fraction of the initial learning rate.
        """
        parts = list(index.split(self.student.job.resolved.micro_batch))
        tokens = [self.calibration.tokens[part] for part in parts]
        totals = []
        sums = [torch.zeros_like(norm.value) for norm in self.heads.norms]

        def head(number: int, output: Tensor) -> Tensor:
            total, slope, found = self.heads.backward(self._original(parts[number]), output, tokens[number])
            totals.append(total)
            for place, gradient in zip(sums, found, strict=True):
                place += gradient
            return slope

        self.student.step(self.calibration.calls, tokens, head, share)
        rate = max(block.norm_rate for block in self.student.blocks)
        for norm, gradient in zip(self.heads.norms, sums, strict=True):
            norm.adam.step(norm.value, gradient, rate * share)
        return sum(totals) / sum(part.numel() for part in tokens)

    def _original(self, index: Tensor) -> Tensor:
        """Return the outputs of the original's last block, as the blocks return them."""
        job = self.student.job
        return job.chain.rows_back(self.calibration.original.hidden.read(index, job.resolved.torch_device))


def _block(job: BlockJob, number: int, kept: KeptBlock, formats: Sequence[FormatPlan]) -> StudentBlock:
    scales: dict[str, list[LearnedScales]] = {}
    for name in kept.grids:
        found = [
            _learned_scales(job, grid, f"{name}-{place}", _SCALE_RATE[one.bits])
            for place, (one, grid) in enumerate(kept.learned(name))
        ]
        if found:
            scales[name] = found
    rate = max((one.rate for same in scales.values() for one in same), default=0.0)
    path, device = f"{job.skeleton.stack}.{number}", job.resolved.torch_device
    norms = learned_norms(job.skeleton, path, formats, device) if scales else []
    return StudentBlock(kept, scales, norms, _NORM_SHARE * rate)


def _learned_scales(job: BlockJob, grid: LevelGrid, name: str, rate: float) -> LearnedScales:
    """Return the scales of a grid with a new optimizer, in the storage of the run."""
    assert job.keep is not None
    adam = Adam(grid.factor)
    adam.mean, adam.square = (job.keep.store(value, f"{name}-adam") for value in (adam.mean, adam.square))
    return LearnedScales(grid, job.keep.store(torch.zeros_like(grid.factor), f"{name}-slopes"), adam, rate)


def _stored_state(job: BlockJob, scales: LearnedScales, number: int) -> tuple[Tensor, ...]:
    """Return a copy of the state of a grid, in the storage of the run."""
    assert job.keep is not None
    state = tuple(job.keep.store(value, f"begin-{number}") for value in scales.grid.state())
    job.keep.release(scales.tensors())
    return state


def _scales(blocks: Sequence[StudentBlock]) -> Iterator[LearnedScales]:
    return (scales for block in blocks for same in block.scales.values() for scales in same)


def _schedule(step: int, steps: int) -> float:
    """Return the fraction of the initial learning rate: a short linear increase, then a linear decrease."""
    return min(1.0, (step + 1) / max(1, steps // _WARM_UP)) * (1 - step / steps)


def _advance(student: Student, activations: SampleActivations) -> None:
    """Replace the activations of the quantized model by those of the student, after the last block."""
    chain = student.job.chain
    inputs = [student.inputs(activations.tokens[part]) for part in activations.slices()]
    for part, state in zip(activations.slices(), student.outputs(activations.calls, inputs), strict=True):
        activations.quantized.hidden.write(part, chain.rows_first(state))


def _mean_divergence(job: BlockJob, heads: Heads, activations: SampleActivations) -> float:
    """Return the mean divergence of the activations of both models after the last block, in nats per token."""
    chain, device, total = job.chain, job.resolved.torch_device, 0.0
    for part in activations.slices():
        original, quantized = (
            chain.rows_back(side.hidden.read(part, device)) for side in (activations.original, activations.quantized)
        )
        total += heads.divergence(original, quantized, activations.tokens[part])
    return total / activations.tokens.numel()
