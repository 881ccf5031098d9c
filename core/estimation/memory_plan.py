"""The choices of a run that decide its peak memory: which are the fastest that stay below a limit.

All sizes are upper estimates from the shapes of the model. The memory of a run is that of the process, of what is kept
between blocks, and of the largest of its phases: the check of the source, the start of a block, its tuning, the
end-to-end stage, and the evaluation with the output head.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from core.errors import BadInput
from core.estimation import run_bytes
from core.model.fused_experts import EXPERT
from core.model.tree import LayerPlan, ModelTree
from core.spec import JobSpec
from core.wording import human

ITEMSIZE = 2
"""Bytes of a number in the dtype of the matrix products before the device is known; a run measures whether it is fast,
and plans with 4 where it is not."""
_PROCESS = 600_000_000
"""Memory of Python with torch, transformers and the compiled loops, without tensors."""
_TOKEN = 2_400
"""Bytes per token of the vocabulary for the tokenizer's tables."""
_ALLOCATOR = 1.08
"""Memory of a phase relative to that of its tensors, since freed memory is not always reused."""
STARTED_WEIGHTS = 1 << 24
"""Weights of a layer that are started at once."""
_STARTED = 16
"""Bytes for each of them: weights, products with the Gram matrix, errors, and levels."""
_CHUNKS = 350_000_000
"""Temporaries of the start, such as the columns of a decomposition and the normal equations of some rows."""
_LOGITS = 256 << 20
"""Chunks of logits of the end-to-end stage, and their gradients."""
_HELD_OUT = 8 * 512
"""Tokens of the held-out windows, whose hidden states are stored as well."""
_ROWS = 24
"""Activations kept for the backward pass of a step, in float32 rows of the block's width."""
_SCALES = 0.4
"""Bytes per weight for the scales of a tuned layer with fixed integers."""


@dataclass(frozen=True)
class MemoryNeeds:
    """Bytes that a run needs, apart from the choices in `MemoryPlan`.

    Attributes:
        process: Python, libraries and tokenizer.
        states: hidden states of both models between blocks, for all samples.
        kept: quantized blocks and the state of their scales until the end-to-end stage.
        fixed: largest phase without a choice: the check of the source, and the evaluation with the output head.
        start: weights of a block during its start, without Gram matrices.
        grams: Gram matrices of the inputs of the layers of a block, in their order; empty without a start.
        tuning: weights and state of a block during its tuning, without activations.
        gradients: gradients of a whole block, which are stored if they are accumulated.
        sample: activations of one sample for the backward pass.
        stage: one block and its gradients in the end-to-end stage, with the heads; 0 without the stage.
        inputs: inputs of all blocks in an end-to-end step.
        blocks: weights of all other blocks and both heads, if they stay loaded in the stage.
        batch: samples of a batch; accumulate: batches of a step.
        steps: whether blocks are tuned by steps.
        frugal: low-memory mode: one sample at a time, and files.
    """

    process: int
    states: int
    kept: int
    fixed: int
    start: int
    grams: tuple[int, ...]
    tuning: int
    gradients: int
    sample: int
    stage: int
    inputs: int
    blocks: int
    batch: int
    accumulate: int
    steps: bool = True
    frugal: bool = False


@dataclass(frozen=True)
class MemoryPlan:
    """The choices of a run that decide its memory, and the memory that it then needs.

    Attributes:
        micro_batch: samples per forward pass, a divisor of the batch size.
        spill: hidden states between blocks, and quantized blocks until the end-to-end stage, are in files.
        gram_bytes: bytes of the Gram matrices that are in memory at the same time.
        passes: passes over the calibration samples to sum up the Gram matrices of a block.
        resident: all blocks stay loaded in the end-to-end stage.
        host: bytes of host memory.
        device: bytes of the memory of a device that has its own; 0 for others.
        files: bytes of the files of the job folder that the run reads and writes until it ends; 0 without `spill`.
    """

    micro_batch: int
    spill: bool
    gram_bytes: int
    passes: int
    resident: bool
    host: int
    device: int
    files: int

    @property
    def slowness(self) -> tuple[int, bool, bool, int]:
        """A key by which plans are ordered, the fastest first.

        A pass over the samples is the dearest, then the loading of blocks in each end-to-end step. Files are mostly
        cached by the system, and small micro-batches cost little on a CPU.
        """
        return (self.passes, not self.resident, self.spill, -self.micro_batch)


def plan_memory(needs: MemoryNeeds, limit: int, device: int | None = None) -> MemoryPlan:
    """Return the fastest choices that fit; those that need the least memory if none do.

    Args:
        limit: bytes of host memory.
        device: bytes of the memory of the device; None if it computes in host memory.
    """
    plans = list(_plans(needs, limit, device))
    fitting = [plan for plan in plans if plan.host <= limit and (device is None or plan.device <= device)]
    if fitting:
        return min(fitting, key=lambda plan: plan.slowness)
    return min(plans, key=lambda plan: (max(plan.host - limit, 0), plan.device, plan.host, plan.slowness))


def check_limit(needs: MemoryNeeds, limit: int, device: int | None = None) -> MemoryPlan:
    """Return the plan for a limit that the user has set.

    Raises:
        BadInput: the run cannot stay below it.
    """
    plan = plan_memory(needs, limit, device)
    if plan.host > limit:
        least = rounded_up(plan.host)
        raise BadInput(
            f"This run needs at least {least} of memory, but the limit is {human(limit)}.",
            f"Use --memory {least.replace(' ', '')}, shorter samples (--seqlen), or a recipe without GPTQ.",
        )
    return plan


def rounded_up(nbytes: int) -> str:
    """Return bytes with a decimal unit, rounded up to three digits: a limit that is large enough."""
    digits = max(0, len(str(nbytes)) - 3)
    shown = math.ceil(nbytes / 10**digits) * 10**digits
    unit, name = next(item for item in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"), (0, "bytes")) if shown >= item[0])
    return f"{shown / max(1, unit):g} {name}"


def memory_needs(tree: ModelTree, plans: Sequence[LayerPlan], spec: JobSpec, itemsize: int) -> MemoryNeeds:
    """Return the needs of a run, estimated from the shapes of the model.

    Args:
        itemsize: bytes of a number in the dtype of the matrix products.
    """
    recipe = spec.recipe
    block = max(range(tree.blocks), key=lambda number: tree.block_weights[number], default=-1)
    weights = max(tree.block_weights, default=0)
    linears = tree.of_block(block)
    layer = max((linear.in_features * linear.out_features for linear in linears), default=0)
    expert = max((one.in_features * one.out_features for one in linears if EXPERT.search(one.kind)), default=0)
    parameter = max(layer, 2 * expert * max(tree.experts, default=0))  # gates and up projections of all experts
    vocabulary, width = run_bytes.vocabulary(tree), run_bytes.hidden_size(tree)
    numbers = (recipe.samples * recipe.seqlen + _HELD_OUT) * width
    stored = 2 if spec.low_memory else 4
    started = recipe.start == "gptq"
    tensors = [tree.tensors[name] for name in tree.block_tensors(block)]
    source = max((tensor.nbytes / max(1, tensor.numel) for tensor in tensors), default=2)
    grams = tuple(4 * linear.in_features**2 for linear in linears) if started else ()
    start = (
        (source + itemsize + 1) * weights
        + max(grams, default=0)
        + _STARTED * min(layer, STARTED_WEIGHTS)
        + _CHUNKS * started
    )
    state = itemsize + (1 + _SCALES + 4 * recipe.learn_integers if started else source + 4)
    tuning = state * weights + (itemsize + (0 if started else 4)) * parameter
    sample = 4 * _ROWS * recipe.seqlen * run_bytes.block_width(tree)
    head = itemsize * vocabulary * width
    stage = kept = 0.0
    steps = run_bytes.samples_per_step(recipe)
    if recipe.end_to_end:
        kept = run_bytes.kept_bytes(plans, recipe).high
        stage = (itemsize + 1) * weights + (itemsize + 2) * parameter + 4 * vocabulary * width + _LOGITS
    fixed = max(4 * weights + source * parameter, run_bytes.scoring_bytes(tree, plans).high, 6 * weights)
    return MemoryNeeds(
        process=_PROCESS + _TOKEN * vocabulary,
        states=2 * stored * numbers,
        kept=int(kept),
        fixed=int(_ALLOCATOR * fixed),
        start=int(_ALLOCATOR * start),
        grams=grams,
        tuning=int(_ALLOCATOR * tuning),
        gradients=int(_ALLOCATOR * itemsize * weights),
        sample=int(_ALLOCATOR * sample),
        stage=int(_ALLOCATOR * stage),
        inputs=4 * steps * recipe.seqlen * width * (tree.blocks + 1) if recipe.end_to_end else 0,
        blocks=int(itemsize * max(0, sum(tree.block_weights) - weights) + 2 * head) if recipe.end_to_end else 0,
        batch=min(recipe.batch_size, recipe.samples),
        accumulate=recipe.accumulate,
        steps=recipe.iters > 0,
        frugal=spec.low_memory,
    )


def _plans(needs: MemoryNeeds, limit: int, device: int | None) -> Iterator[MemoryPlan]:
    """Yield the plan with the largest allowed Gram matrices for each combination of the other choices."""
    divisors = [count for count in range(needs.batch, 0, -1) if needs.batch % count == 0]
    batches = [1] if needs.frugal else divisors
    spills = [True] if needs.frugal else [False, True]
    residents = [True, False] if needs.stage else [True]
    largest, whole = max(needs.grams, default=0), sum(needs.grams)
    for micro, spill, resident in product(batches, spills, residents):
        between = 0 if spill else needs.states + needs.kept
        room = (limit - needs.process - between if device is None else device) - needs.start
        grams = min(whole, max(largest, room))
        tuning = needs.tuning + micro * needs.sample if needs.steps else 0
        if needs.steps and needs.accumulate * needs.batch > micro:
            tuning += needs.gradients
        stage = needs.stage and needs.stage + micro * needs.sample
        if needs.stage:
            stage += (needs.blocks if resident else 0) + (0 if spill else needs.inputs)
        work = max(needs.fixed, needs.start + grams, tuning, stage)
        host = needs.process + between + (work if device is None else needs.fixed)
        files = needs.states + needs.kept + needs.inputs if spill else 0
        yield MemoryPlan(
            micro, spill, grams, _passes(needs.grams, grams), resident, host, 0 if device is None else work, files
        )


def _passes(sizes: Sequence[int], budget: int) -> int:
    """Return the number of passes if each sums up as many matrices, in order, as fit into the budget."""
    passes, used = 1, 0
    for size in sizes:
        if used and used + size > budget:
            passes, used = passes + 1, 0
        used += size
    return passes
