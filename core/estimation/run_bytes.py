"""Bytes of parts of a run, estimated from the shapes of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from core.model.fused_experts import EXPERT
from core.model.tree import HEAD, LayerPlan, ModelTree
from core.recipes import Recipe

_MB = 1_000_000
CHUNK_BYTES = 1 << 26
"""Size of a chunk of float32 logits in an evaluation."""
_LOGITS = 5
"""Copies of a chunk of logits during an evaluation: raw, capped, converted and exponentiated."""
_HEAD = (2, 3)
"""Bytes per weight of the output head during an evaluation: 16 bits, or integers with their scales."""
_HEAD_ROUNDED = (4, 9)
"""Bytes per weight of a quantized head: weight, integers, offsets and the packed form (Gemma 3: 7)."""
_PIECE = 100 * _MB
"""Bytes of an embedding that are rounded or compared at once."""
_KEPT = (1.1, 1.6)
"""Bytes per quantized weight that are kept until the end-to-end steps: an integer, and the state of its scale."""
_STEP_TOKENS = 512
"""Tokens of an end-to-end step; more if one sample is longer."""


@dataclass(frozen=True)
class Range:
    """A range from `low` to `high`."""

    low: float
    high: float

    def to_json(self) -> list[float]:
        return [self.low, self.high]


def samples_per_step(recipe: Recipe) -> int:
    """Return the number of samples of an end-to-end step."""
    return max(1, min(recipe.samples, _STEP_TOKENS // recipe.seqlen))


def kept_bytes(plans: Sequence[LayerPlan], recipe: Recipe) -> Range:
    """Return the bytes of the quantized blocks that are kept until the end-to-end steps.

    They are in memory, or in files if the plan of the memory says so (`core.estimation.memory_plan`).
    """
    if not recipe.end_to_end:
        return Range(0, 0)
    weights = sum(
        plan.linear.in_features * plan.linear.out_features
        for plan in plans
        if plan.scheme.quantized and plan.linear.block >= 0
    )
    return Range(_KEPT[0] * weights, _KEPT[1] * weights)


def scoring_bytes(tree: ModelTree, plans: Sequence[LayerPlan]) -> Range:
    """Return the bytes of the output head during an evaluation, or while it is quantized, written and verified."""
    embedding = tree.tensors.get(f"{tree.embedding}.weight")
    if embedding is None:
        return Range(0, 0)
    weights = embedding.numel
    # The logits of 512 tokens may be smaller than a chunk.
    logits = min(CHUNK_BYTES, 4 * 512 * embedding.shape[0])
    # Layers outside the blocks come last, so the plans of the blocks (there may be 20,000) need not be visited.
    outside = takewhile(lambda plan: plan.linear.block < 0, reversed(plans))
    head = any(plan.scheme.quantized and plan.linear.block == HEAD for plan in outside)
    low, high = _HEAD[0] * weights, _HEAD[1] * weights + _LOGITS * logits
    if head:
        low, high = max(low, _HEAD_ROUNDED[0] * weights), max(high, _HEAD_ROUNDED[1] * weights)
    return Range(low, high + min(_PIECE, 24 * weights))


def vocabulary(tree: ModelTree) -> int:
    """Return the number of rows of the token embedding."""
    embedding = tree.tensors.get(f"{tree.embedding}.weight")
    return embedding.shape[0] if embedding is not None else 0


def hidden_size(tree: ModelTree) -> int:
    """Return the hidden size, which is the number of columns of the token embedding."""
    embedding = tree.tensors.get(f"{tree.embedding}.weight")
    return embedding.shape[1] if embedding is not None else 0


def block_width(tree: ModelTree) -> int:
    """Return the mean of the hidden size and the largest width in a block, since rows of both are kept.

    The input and the intermediate activations of an expert are kept for each expert of a token.
    """
    mixture = next((block for block, experts in enumerate(tree.experts) if experts), 0)
    repeated = max(1, tree.experts_per_token)
    widest = max(
        (
            max(linear.in_features, linear.out_features) * (repeated if EXPERT.search(linear.kind) else 1)
            for block in {0, mixture}
            for linear in tree.of_block(block)
        ),
        default=0,
    )
    return (hidden_size(tree) + widest) // 2
