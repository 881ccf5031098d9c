"""What a run will need, before it starts: disk, memory and time, as ranges. Pure arithmetic over shapes.

The ranges are honest rather than narrow: a machine that does other work, an attention kernel that allocates, a
slow disk. Knows no device; the speed of matrix products comes in from outside, measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from core.estimation.sizes import output_size
from core.model.tree import LayerPlan, ModelTree
from core.recipes import Recipe
from core.spec import JobSpec

_MB = 1_000_000
BUSY = 0.15
"""Share of the CPU that other programs use from which a measured speed is said to be of a busy machine."""
CHUNK_BYTES = 1 << 26
"""Bytes of a piece of logits, float32, while a text is scored."""
_SIDE_FILES = (1 * _MB, 40 * _MB)
"""Tokenizer, template and configs that come along."""
_PROCESS = (350 * _MB, 800 * _MB)
"""Python with torch and transformers loaded, before any tensor."""
_TOKEN = (1_200, 2_400)
"""Bytes of the tokenizer's tables for each token of the vocabulary (262,144 tokens of Gemma 3: 0.4 GB)."""
_TOKEN_READ = 4_500
"""The same while the tokenizer is read (Gemma 3: 1 GB), before anything else is in memory."""
_STATE = (14, 26)
"""Bytes per weight of the block that is tuned: weight, rounded weight, gradient, offsets and the best of them."""
_ROWS = (10, 24)
"""Activations that a step keeps for its backward pass, in rows of the hidden width."""
_SLOWDOWN = (1.1, 2.6)
"""Time against that of bare matrix products: rounding, normalization, optimizer, files, other programs."""
_LOGITS = 5
"""Copies of a piece of logits while it is scored: as the head makes them, capped, converted, exponentials."""
_HEAD = (2, 3)
"""Bytes per weight of the output head while it is scored: 16 bits, or integers with their scales."""
_HEAD_ROUNDED = (4, 9)
"""Bytes per weight of a head that is quantized: weight, integers, offsets, and the packed form (Gemma 3: 7)."""
_PIECE = 100 * _MB
"""Rows of an embedding that are rounded or compared at once."""
_START = (5.0, 40.0)
"""Seconds to load libraries, read the text, write the rest and verify."""
_SCORED_TOKENS = 8 * 512
"""Tokens of text on which the loss is measured."""
_JUDGED = 8 * 10
"""Forward passes of one sample that judge candidates within a block."""


@dataclass(frozen=True)
class Range:
    """From `low` to `high`."""

    low: float
    high: float

    def to_json(self) -> list[float]:
        return [self.low, self.high]


@dataclass(frozen=True)
class Costs:
    """Bytes of disk, host memory and device memory, and seconds (None where no speed is known).

    Attributes:
        load: share of the CPU that other programs used while the speed was measured, 0 to 1.
        warning: what should be known before the run, or "".
    """

    disk: Range
    ram: Range
    device: Range
    seconds: Range | None
    flops: float
    load: float = 0.0
    warning: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "disk_bytes": self.disk.to_json(),
            "ram_bytes": self.ram.to_json(),
            "device_bytes": self.device.to_json(),
            "seconds": self.seconds.to_json() if self.seconds else None,
            "flops": self.flops,
            "load": self.load,
            "warning": self.warning,
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
    """The costs of a run.

    Args:
        throughput: FLOP/s of matrix products on the device of the run; None leaves the time open.
        on_device: the device has memory of its own.
        load: share of the CPU that other programs used while `throughput` was measured there: with a quiet machine the
            run is faster by as much, and the range of seconds reaches from that to the machine as it is.
    """
    caches = cache_bytes(tree, spec.recipe)
    disk = _disk(tree, plans, spec, caches)
    tuned, scored = _working_set(tree, spec), _scoring_set(tree, plans)
    on_disk = spec.low_memory
    host_caches = Range(0, 0) if on_disk else caches
    # The states of the calibration samples are given up before the head is scored.
    work = Range(max(tuned.low, scored.low), max(tuned.high, scored.high))
    held = host_caches
    if not on_device:
        low = max(host_caches.low + tuned.low, scored.low)
        held = Range(low, max(host_caches.high + tuned.high, scored.high))
    tokens = _vocabulary(tree)
    ram = Range(
        _PROCESS[0] + _TOKEN[0] * tokens + held.low,
        _PROCESS[1] + max(_TOKEN_READ * tokens, _TOKEN[1] * tokens + held.high),
    )
    flops = run_flops(tree, spec.recipe)
    seconds = None
    if throughput:
        bare = (flops + scoring_flops(tree)) / throughput
        seconds = Range(_START[0] + bare * (1 - min(load, 0.98)) * _SLOWDOWN[0], _START[1] + bare * _SLOWDOWN[1])
    return Costs(disk, ram, work if on_device else Range(0, 0), seconds, flops, load)


def run_flops(tree: ModelTree, recipe: Recipe) -> float:
    """Floating point operations of a whole run.

    For a block with P weights, T tokens a step, I steps and N tokens of calibration:
    6*P*T*I for tuning (forward, gradient of the inputs, gradient of the weights: 2*P*T each), 2 * 2*P*N for the two
    sets of activations, and a few forward passes that judge candidates. Attention adds 2*S*H for each
    token of a forward pass in a causal model with S tokens of context and hidden width H, three times that in
    a step. Without steps only the activations are computed, and plain rounding needs not even those.
    """
    if recipe.iters == 0 and not recipe.search_scale:
        return 0.0
    step = recipe.batch_size * recipe.accumulate * recipe.seqlen
    activations = 2 * recipe.samples * recipe.seqlen
    judged = _JUDGED * recipe.seqlen if recipe.iters else 0
    attention = 2 * recipe.seqlen * _hidden(tree)
    total = 0.0
    for weights in tree.block_weights:
        forward = 2 * weights + attention
        total += 3 * forward * step * recipe.iters + forward * (activations + judged)
    return total


def scoring_flops(tree: ModelTree) -> float:
    """Floating point operations that measure the loss: the held-out text through both models, and through the files.

    With plain rounding, and with a large vocabulary, this is most of a run.
    """
    embedding = tree.tensors.get(f"{tree.embedding}.weight")
    head = embedding.numel if embedding is not None else 0
    return 3 * 2 * _SCORED_TOKENS * (sum(tree.block_weights) + head)


def cache_bytes(tree: ModelTree, recipe: Recipe) -> Range:
    """Hidden states of all samples: input and target of the block in 2 bytes a number, to three sets in 4 bytes."""
    numbers = recipe.samples * recipe.seqlen * _hidden(tree)
    return Range(2 * 2 * numbers, 3 * 4 * numbers)


def _disk(tree: ModelTree, plans: Sequence[LayerPlan], spec: JobSpec, caches: Range) -> Range:
    tensors = sum(output_size(tree, plans, name).total for name in spec.formats)
    extra = caches if spec.low_memory else Range(0, 0)
    side = len(spec.formats)
    return Range(tensors + side * _SIDE_FILES[0] + extra.low, tensors + side * _SIDE_FILES[1] + extra.high)


def _working_set(tree: ModelTree, spec: JobSpec) -> Range:
    """State of the heaviest block, and the activations of one step."""
    recipe = spec.recipe
    weights = max(tree.block_weights, default=0)
    if recipe.iters == 0:
        return Range(6 * weights, 16 * weights)
    width = _block_width(tree)
    micro = recipe.seqlen * (1 if spec.low_memory else recipe.batch_size)
    return Range(
        _STATE[0] * weights + 4 * _ROWS[0] * recipe.seqlen * width,
        _STATE[1] * weights + 4 * _ROWS[1] * micro * width,
    )


def _scoring_set(tree: ModelTree, plans: Sequence[LayerPlan]) -> Range:
    """What the output head takes while the text is scored, or while it is quantized, written and read back."""
    embedding = tree.tensors.get(f"{tree.embedding}.weight")
    if embedding is None:
        return Range(0, 0)
    weights = embedding.numel
    # A window of 512 tokens may be less than a piece of logits.
    logits = min(CHUNK_BYTES, 4 * 512 * embedding.shape[0])
    # Layers outside the blocks come last, so the plans of the blocks (there may be 20,000) need not be visited.
    outside = takewhile(lambda plan: plan.linear.block < 0, reversed(plans))
    head = any(plan.scheme.quantized for plan in outside)
    low, high = _HEAD[0] * weights, _HEAD[1] * weights + _LOGITS * logits
    if head:
        low, high = max(low, _HEAD_ROUNDED[0] * weights), max(high, _HEAD_ROUNDED[1] * weights)
    return Range(low, high + min(_PIECE, 24 * weights))


def _vocabulary(tree: ModelTree) -> int:
    """Rows of the token embedding."""
    embedding = tree.tensors.get(f"{tree.embedding}.weight")
    return embedding.shape[0] if embedding is not None else 0


def _hidden(tree: ModelTree) -> int:
    """Hidden width: the columns of the token embedding (a checkpoint may list a block's layers in any order)."""
    embedding = tree.tensors.get(f"{tree.embedding}.weight")
    return embedding.shape[1] if embedding is not None else 0


def _block_width(tree: ModelTree) -> int:
    """The mean of hidden and widest inner width; both kinds of rows are kept."""
    widest = max((max(linear.in_features, linear.out_features) for linear in tree.of_block(0)), default=0)
    return (_hidden(tree) + widest) // 2
