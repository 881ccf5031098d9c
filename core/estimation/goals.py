"""Suggestion of bits and a recipe for a goal: fit into memory, best quality, or shortest time.

Uses the estimates of `core.estimation.sizes` and `core.estimation.costs`. The rule of each goal is in its docstring.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from core.estimation.costs import Costs, Range
from core.estimation.kv_cache import cache_bytes
from core.estimation.sizes import layer_bytes
from core.model.context import context_length
from core.model.tree import ModelTree
from core.schemes import BITS, LayerScheme
from core.wording import count, human, time_range

CONVERSATION = 4096
"""Tokens of the conversation that must fit into memory besides the weights, or the model's context if it is shorter."""
ENGINE = 800_000_000
"""Bytes of the program besides weights and conversation: Python with torch, upper end (as in `costs`)."""
PATIENCE = 3600.0
"""Maximum number of seconds of a run for the goal "fast"."""


@dataclass(frozen=True)
class Suggestion:
    """Suggested settings for a goal, and the reason as one line. None and "" keep the current setting."""

    why: str
    bits: int | None = None
    recipe: str = ""
    low_memory: bool | None = None


@dataclass(frozen=True)
class Footprint:
    """Bytes of memory of a model during generation: weights as stored, cache of one conversation, and the program.

    Applies to inference engines that compute on packed integers. One that unpacks them needs as much memory as for the
    original.
    """

    weights: int
    conversation: int
    engine: int = ENGINE

    @property
    def total(self) -> int:
        return self.weights + self.conversation + self.engine


def conversation_bytes(tree: ModelTree) -> int:
    """Return the bytes of the cache of a conversation of `conversation_tokens`, see `core.estimation.kv_cache`."""
    return cache_bytes(tree, conversation_tokens(tree))


def conversation_tokens(tree: ModelTree) -> int:
    """Return CONVERSATION, or the context length of the model if it is shorter."""
    return min(CONVERSATION, context_length(tree.config) or CONVERSATION)


def fit(tree: ModelTree, scheme: LayerScheme, format_name: str, room: float) -> Suggestion:
    """Suggest the most bits, the same for all layers, with which the quantized model runs in `room` bytes of memory.

    Tries 8, 4, 3 and 2 bits with the group size and symmetry of `scheme`, and selects the first for which the weights,
    one conversation and the program fit.
    """
    layers = _Layers.of(tree)
    larger, label = Footprint(layers.source, conversation_bytes(tree)), "the original"
    for bits in sorted(BITS, reverse=True):
        found = _footprint(tree, layers, replace(scheme, bits=bits), format_name)
        if found.total <= room:
            return Suggestion(f"{bits} bits: {_sum(tree, found)}. {_next_larger(label, larger, room)}", bits=bits)
        larger, label = found, f"{bits} bits"
    return Suggestion(
        f"Even with 2 bits it needs more than {human(room)}: {_sum(tree, larger)}. "
        "Choose a smaller model, or allow more memory."
    )


def best(scheme: LayerScheme, needed: Costs | None, memory: float | None) -> Suggestion:
    """Suggest the recipe `best`; bits, group size and symmetry, which determine the size, are kept.

    Also suggests low-memory mode if the run might need more than `memory`.

    Args:
        scheme: the default scheme.
        needed: costs of the run; None if unknown.
        memory: free host memory in bytes; None if unknown.
    """
    tight = needed is not None and memory is not None and needed.ram.high > memory
    seconds = needed.seconds if needed else None
    line = f"The recipe best keeps the size and uses the most text and steps of Bitwright's own: {_time(seconds)}."
    if needed is not None and memory is not None and tight:
        line += (
            f" Low-memory mode is on because the run may need {human(needed.ram.high)} and {human(memory)} are free."
        )
    if scheme.quantized and scheme.bits <= 3:
        line += (
            f" With {scheme.bits} bits, smaller groups or asymmetric quantization also help, at a slightly larger size."
        )
    return Suggestion(line, recipe="best", low_memory=True if tight else None)


def fast(scheme: LayerScheme, quick: Range | None) -> Suggestion:
    """Suggest the recipe `quick`, or plain rounding if `quick` may take over an hour and there are at least 4 bits.

    Args:
        scheme: the default scheme.
        quick: seconds of a run with `quick`; None if unknown.
    """
    if quick is not None and quick.high > PATIENCE and scheme.bits >= 4:
        return Suggestion(
            f"Plain rounding (rtn) is fastest; quick would take {time_range(quick.low, quick.high)} on this machine.",
            recipe="rtn",
        )
    return Suggestion(f"The recipe quick uses few short samples and few steps: {_time(quick)}.", recipe="quick")


@dataclass(frozen=True)
class _Layers:
    """Number of quantized layers in the blocks by inputs, outputs and stored bytes, and the bytes of all tensors."""

    shapes: Counter[tuple[int, int, int]]
    source: int

    @staticmethod
    def of(tree: ModelTree) -> _Layers:
        ruled = (
            weight
            for linear, weight in zip(tree.linears, tree.weights, strict=True)
            if linear.block >= 0 and not linear.kept
        )
        return _Layers(Counter(ruled), tree.nbytes)


def _footprint(tree: ModelTree, layers: _Layers, scheme: LayerScheme, format_name: str) -> Footprint:
    weights = layers.source
    for (inputs, outputs, stored), count_of in layers.shapes.items():
        fitted, _ = scheme.fit(inputs, outputs)
        weights += count_of * (layer_bytes(inputs, outputs, fitted, format_name, stored) - stored)
    return Footprint(weights, conversation_bytes(tree))


def _sum(tree: ModelTree, found: Footprint) -> str:
    return (
        f"{human(found.weights)} of weights, {human(found.conversation)} for a conversation of "
        f"{count(conversation_tokens(tree))} tokens and {human(found.engine)} for the program make {human(found.total)}"
    )


def _next_larger(label: str, larger: Footprint, room: float) -> str:
    if larger.total <= room:
        return f"Even {label} would fit: {human(larger.total)}."
    return f"With {label} it would need {human(larger.total)}."


def _time(seconds: Range | None) -> str:
    if seconds is None:
        return "the time can be estimated once this machine has been measured"
    return f"estimated {time_range(seconds.low, seconds.high)}"
