"""Estimate of the disk space, memory and time of a run, as ranges, from the shapes of the model.

The ranges allow for other programs on the machine, for memory allocated by attention kernels, and for slow disks. The
speed of matrix products is an argument; it is measured elsewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

from core.estimation.memory_plan import ITEMSIZE, memory_needs, plan_memory
from core.estimation.run_bytes import Range as Range
from core.estimation.run_bytes import block_width, hidden_size, kept_bytes, samples_per_step, scoring_bytes, vocabulary
from core.estimation.sizes import output_size
from core.model.tree import LayerPlan, ModelTree
from core.recipes import Recipe
from core.spec import JobSpec

_MB = 1_000_000
BUSY = 0.15
"""CPU share of other programs from which the machine is reported as busy."""
_SIDE_FILES = (1 * _MB, 40 * _MB)
"""Size of tokenizer, chat template and configs."""
_PROCESS = (350 * _MB, 800 * _MB)
"""Memory of Python with torch and transformers, without tensors."""
_TOKEN = (1_200, 2_400)
"""Bytes per token of the vocabulary for the tokenizer's tables (Gemma 3, 262,144 tokens: 0.4 GB)."""
_TOKEN_READ = 4_500
"""Bytes per token of the vocabulary while the tokenizer is loaded, before the model (Gemma 3: 1 GB)."""
_STATE = (14, 26)
"""Bytes per weight of the tuned block: weight, rounded weight, gradient, offsets and the best offsets."""
_FIXED_STATE = 10
"""The smallest number of bytes per weight if the integers are fixed: without offsets."""
_ROWS = (10, 24)
"""Activations kept for the backward pass of a step, in rows of the block's width."""
_START_OPERATIONS = 80
"""Floating point operations of matrix products that take as long as the start of a layer, per weight and input.

Measured on CPUs with bfloat16 instructions: 80 for layers of 4096 x 14336 weights, 130 for 576 x 576 to 576 x 1536."""
_GRAM_COPIES = (3, 8)
"""Copies of the Gram matrix of a layer during its start: damped, in another order, inverted and decomposed."""
_SLOWDOWN = (1.0, 1.7)
"""Time of a run relative to that of its matrix products: attention, normalization, files. Measured on two CPU cores
with bfloat16 instructions and the demo model: 1 for tuning steps, 1.5 for the passes over the calibration text."""
_ROUNDING = (3_500, 8_000)
"""Floating point operations of matrix products that take as long as the rounding and update of one weight in a step.

This is most of the time of a step of a mixture, in which each weight is used for few tokens. Measured as above: 5,000
in the tuning steps of a block, 6,700 in an end-to-end step."""
_LOGITS = 2
"""Time of the predictions relative to that of the product with the output head: softmax and divergence. Measured: 2.5
with a vocabulary of 49,152 tokens and hidden states of 576 values, which is inside `_SLOWDOWN`."""
_START = (5.0, 40.0)
"""Seconds to load libraries, tokenize the text, write the remaining files and verify."""
_SCORED_TOKENS = 8 * 512
"""Tokens of the text on which the loss is measured."""
FIXED_SAMPLES = 8
"""Samples on which candidates are compared. A comparison by minibatch loss would favour easy minibatches."""
_JUDGED = FIXED_SAMPLES * 10
"""Forward passes of one sample per block for the comparison of candidates."""


@dataclass(frozen=True)
class Costs:
    """Estimated costs of a run.

    Attributes:
        disk: bytes on disk.
        ram: bytes of host memory.
        device: bytes of device memory.
        seconds: duration; None if the speed is unknown.
        flops: floating point operations.
        load: CPU share of other programs during the measurement of the speed, 0 to 1.
        warning: warning for the user, or "".
        tokens_per_expert: mean number of tokens of the calibration text that an expert computes; None if the model is
            no mixture, or its config does not contain the number of experts per token.
    """

    disk: Range
    ram: Range
    device: Range
    seconds: Range | None
    flops: float
    load: float = 0.0
    warning: str = ""
    tokens_per_expert: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "disk_bytes": self.disk.to_json(),
            "ram_bytes": self.ram.to_json(),
            "device_bytes": self.device.to_json(),
            "seconds": self.seconds.to_json() if self.seconds else None,
            "flops": self.flops,
            "load": self.load,
            "warning": self.warning,
            "tokens_per_expert": self.tokens_per_expert,
        }


def estimate(
    tree: ModelTree,
    plans: Sequence[LayerPlan],
    spec: JobSpec,
    throughput: float | None,
    *,
    on_device: bool = False,
    load: float = 0.0,
) -> Costs:
    """Estimate the costs of a run.

    Args:
        tree: module tree of the model.
        plans: scheme of each layer.
        spec: the job.
        throughput: measured FLOP/s of matrix products on the device; None if unknown.
        on_device: the device has its own memory.
        load: CPU share of other programs while `throughput` was measured. The range of seconds extends from an idle
            machine to the measured load.
    """
    caches = cache_bytes(tree, spec.recipe)
    tuned, scored = _working_set(tree, spec), scoring_bytes(tree, plans)
    limited = None if spec.memory is None else plan_memory(memory_needs(tree, plans, spec, ITEMSIZE), spec.memory)
    on_disk = spec.low_memory or (limited is not None and limited.spill)
    disk = _disk(tree, plans, spec, caches, on_disk)
    host_caches = Range(0, 0) if on_disk else caches
    # The hidden states of the calibration samples are freed before the evaluation.
    work = Range(max(tuned.low, scored.low), max(tuned.high, scored.high))
    held = host_caches
    if not on_device:
        low = max(host_caches.low + tuned.low, scored.low)
        held = Range(low, max(host_caches.high + tuned.high, scored.high))
    tokens = vocabulary(tree)
    kept = Range(0, 0) if on_disk else kept_bytes(plans, spec.recipe)
    ram = Range(
        _PROCESS[0] + _TOKEN[0] * tokens + held.low + kept.low,
        _PROCESS[1] + max(_TOKEN_READ * tokens, _TOKEN[1] * tokens + held.high) + kept.high,
    )
    if limited is not None:
        ram = Range(min(ram.low, limited.host), min(ram.high, limited.host))
    tuned_blocks = _tuned_blocks(plans, spec.recipe)
    flops = run_flops(tree, spec.recipe, tuned_blocks) + end_to_end_flops(tree, spec.recipe)
    seconds = None
    if throughput:
        bare = (flops + scoring_flops(tree)) / throughput
        rounded = spec.recipe.iters * sum(tree.block_weights[block] for block in tuned_blocks)
        steps = (rounded + spec.recipe.end_to_end * sum(tree.block_weights)) / throughput
        low, high = (bare * slow + steps * rounding for slow, rounding in zip(_SLOWDOWN, _ROUNDING, strict=True))
        seconds = Range(_START[0] + low * (1 - min(load, 0.98)), _START[1] + high)
    device = work if on_device else Range(0, 0)
    return Costs(disk, ram, device, seconds, flops, load, tokens_per_expert=tokens_per_expert(tree, spec.recipe))


def _tuned_blocks(plans: Sequence[LayerPlan], recipe: Recipe) -> frozenset[int]:
    """Return the blocks with a layer that is tuned."""
    return frozenset(
        plan.linear.block
        for plan in plans
        if plan.linear.block >= 0 and plan.scheme.quantized and recipe.range_rate(plan.scheme.bits) > 0
    )


def run_flops(tree: ModelTree, recipe: Recipe, tuned: Container[int] | None = None) -> float:
    """Return the floating point operations of a whole run without its end-to-end steps.

    For a block in which each token uses P weights (all, or those of its experts), T tokens per step, I steps and N
    calibration tokens: 6*P*T*I for tuning (forward pass, gradient of the inputs, gradient of the weights: 2*P*T each),
    2 * 2*P*N for the activations of the original and of the quantized model, and some forward passes for the comparison
    of candidates. Attention adds 2*S*H per token of a forward pass in a causal model with S tokens of context and
    hidden size H, and three times as much in a step. Without steps only the activations remain; plain rounding does not
    need them either.

    The start "gptq" adds another forward pass, 2*P*N for the Gram matrices, whose sizes are about those of the weights,
    and the start of each layer. A run whose Gram matrices do not fit into the memory makes more passes.

    Args:
        tuned: the blocks with steps; None for all.
    """
    if not recipe.reads_text:
        return 0.0
    step = recipe.batch_size * recipe.accumulate * recipe.seqlen
    activations = 2 * recipe.samples * recipe.seqlen
    attention = 2 * recipe.seqlen * hidden_size(tree)
    total = 0.0
    for block, weights in enumerate(tree.active_weights):
        forward = 2 * weights + attention
        total += forward * activations
        if recipe.iters and (tuned is None or block in tuned):
            total += forward * (3 * step * recipe.iters + _JUDGED * recipe.seqlen)
    return total + (_start_flops(tree, recipe) if recipe.start == "gptq" else 0.0)


def _start_flops(tree: ModelTree, recipe: Recipe) -> float:
    """Return the floating point operations of the start of all layers."""
    weights = sum(tree.active_weights)
    passes = recipe.samples * recipe.seqlen * (4 * weights + 2 * recipe.seqlen * hidden_size(tree) * tree.blocks)
    shapes = Counter(weight for linear, weight in zip(tree.linears, tree.weights, strict=True) if linear.block >= 0)
    layers = sum(number * inputs * inputs * outputs for (inputs, outputs, _), number in shapes.items())
    return passes + _START_OPERATIONS * layers


def end_to_end_flops(tree: ModelTree, recipe: Recipe) -> float:
    """Return the floating point operations of the end-to-end steps.

    Each block is run twice, and its backward pass takes as long as two forward passes. The logits of both models and
    the gradient of one of them are three products with the head. The divergence is measured on the fixed samples and on
    the held-out text, before and after the steps.
    """
    if not recipe.end_to_end:
        return 0.0
    forward = sum(2 * weights + 2 * recipe.seqlen * hidden_size(tree) for weights in tree.active_weights)
    head = _LOGITS * 2 * vocabulary(tree) * hidden_size(tree)
    step = samples_per_step(recipe) * recipe.seqlen
    judged = 2 * (FIXED_SAMPLES * recipe.seqlen + _SCORED_TOKENS)
    return recipe.end_to_end * step * (4 * forward + 3 * head) + judged * (forward + 2 * head)


def end_to_end_share(tree: ModelTree, recipe: Recipe) -> float:
    """Return the fraction of the end-to-end steps in the operations of a run."""
    steps = end_to_end_flops(tree, recipe)
    return steps / (steps + run_flops(tree, recipe)) if steps else 0.0


def tokens_per_expert(tree: ModelTree, recipe: Recipe) -> float | None:
    """Return the mean number of tokens of the calibration text that an expert computes; None if it is unknown."""
    experts = max(tree.experts, default=0)
    if not experts or not tree.experts_per_token:
        return None
    return recipe.samples * recipe.seqlen * min(1.0, tree.experts_per_token / experts)


def scoring_flops(tree: ModelTree) -> float:
    """Return the floating point operations of the evaluation of the original, the quantized model and the output.

    This is most of a run with plain rounding or with a large vocabulary.
    """
    embedding = tree.tensors.get(f"{tree.embedding}.weight")
    head = embedding.numel if embedding is not None else 0
    return 3 * 2 * _SCORED_TOKENS * (sum(tree.active_weights) + head)


def cache_bytes(tree: ModelTree, recipe: Recipe) -> Range:
    """Return the bytes of the hidden states of all samples: from two sets in 2 bytes per value to three in 4 bytes."""
    numbers = recipe.samples * recipe.seqlen * hidden_size(tree)
    return Range(2 * 2 * numbers, 3 * 4 * numbers)


def _disk(tree: ModelTree, plans: Sequence[LayerPlan], spec: JobSpec, caches: Range, on_disk: bool) -> Range:
    tensors = sum(output_size(tree, plans, name).total for name in spec.formats)
    kept = kept_bytes(plans, spec.recipe)
    extra = Range(caches.low + kept.low, caches.high + kept.high) if on_disk else Range(0, 0)
    side = len(spec.formats)
    return Range(tensors + side * _SIDE_FILES[0] + extra.low, tensors + side * _SIDE_FILES[1] + extra.high)


def _working_set(tree: ModelTree, spec: JobSpec) -> Range:
    """Return the bytes of the tuning state of the largest block and of the activations of one step."""
    recipe = spec.recipe
    weights = max(tree.block_weights, default=0)
    grams = _gram_bytes(tree) if recipe.start == "gptq" else Range(0, 0)
    if recipe.iters == 0:
        return Range(6 * weights + grams.low, 16 * weights + grams.high)
    width = block_width(tree)
    micro = recipe.seqlen * (1 if spec.low_memory else recipe.batch_size)
    # The Gram matrices are freed before the steps. A grid with fixed integers has less state than one with offsets.
    low = (_STATE[0] if recipe.start != "gptq" else _FIXED_STATE) * weights + 4 * _ROWS[0] * recipe.seqlen * width
    high = _STATE[1] * weights + 4 * _ROWS[1] * micro * width
    return Range(max(low, 6 * weights + grams.low), max(high, 16 * weights + grams.high))


def _gram_bytes(tree: ModelTree) -> Range:
    """Return the bytes of the Gram matrices of a block, and of the copies of one of them.

    The run keeps those of as many layers as fit into a quarter of the free memory: at least one, at most all.
    """
    block = max(range(tree.blocks), key=lambda number: tree.block_weights[number], default=-1)
    sizes = [4 * linear.in_features**2 for linear in tree.of_block(block)]
    largest = max(sizes, default=0)
    return Range(_GRAM_COPIES[0] * largest, sum(sizes) + _GRAM_COPIES[1] * largest)
