"""From what somebody wants (it must fit, it must be good, it must be quick) to bits and a recipe, with the reason.

Arithmetic over shapes with `core.estimation.sizes` and `core.estimation.costs`; every rule stands in the docstring of
its goal. Measures nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from core.estimation.costs import Costs, Range
from core.estimation.sizes import layer_bytes
from core.model.context import context_length
from core.model.refusals import text_config
from core.model.tree import ModelTree
from core.schemes import BITS, LayerScheme
from core.wording import count, human, time_range

CONVERSATION = 4096
"""Tokens of a conversation that must fit beside the weights; fewer where the model's own limit is lower."""
ENGINE = 800_000_000
"""Bytes that a program takes beside weights and conversation: Python with torch, at the high end (as in `costs`)."""
PATIENCE = 3600.0
"""Seconds that somebody who wants it fast may have to wait at most."""


@dataclass(frozen=True)
class Suggestion:
    """What a goal asks for, and one line that says what it is and why. None and "" leave a choice as it is."""

    why: str
    bits: int | None = None
    recipe: str = ""
    low_memory: bool | None = None


@dataclass(frozen=True)
class Footprint:
    """Bytes of memory that a model takes while it answers: its weights as stored, one conversation, the program.

    True of engines that compute on the packed integers; one that unpacks them first takes as much as for the original.
    """

    weights: int
    conversation: int
    engine: int = ENGINE

    @property
    def total(self) -> int:
        return self.weights + self.conversation + self.engine


def conversation_bytes(tree: ModelTree) -> int:
    """The keys and values of CONVERSATION tokens in 16 bits: 2 * 2 bytes for each block and key-value channel."""
    return 2 * 2 * tree.blocks * _channels(tree) * conversation_tokens(tree)


def conversation_tokens(tree: ModelTree) -> int:
    """CONVERSATION, or what the model can take where that is less."""
    return min(CONVERSATION, context_length(tree.config) or CONVERSATION)


def fit(tree: ModelTree, scheme: LayerScheme, format_name: str, room: float) -> Suggestion:
    """The most bits, the same for all layers, with which the small model runs in `room` bytes of memory.

    Tries 8, 4, 3 and 2 bits with the group size and symmetry of `scheme` and takes the first whose weights, one
    conversation and the program together are not more than the room.
    """
    layers = _Layers.of(tree)
    larger, label = Footprint(layers.source, conversation_bytes(tree)), "the original"
    for bits in sorted(BITS, reverse=True):
        found = _footprint(tree, layers, replace(scheme, bits=bits), format_name)
        if found.total <= room:
            return Suggestion(f"{bits} bits: {_sum(tree, found)}. {_next_larger(label, larger, room)}", bits=bits)
        larger, label = found, f"{bits} bits"
    return Suggestion(
        f"Even at 2 bits it takes more than {human(room)}: {_sum(tree, larger)}. "
        "Pick a smaller model, or allow more memory."
    )


def best(scheme: LayerScheme, needed: Costs | None, memory: float | None) -> Suggestion:
    """The recipe `best`: bits, group size and symmetry decide the size and stay as they are.

    Low-memory mode comes with it where the run might need more than `memory`.

    Args:
        needed: the costs of that run; None while they are not known.
        memory: bytes of host memory that are free; None while that is not known.
    """
    tight = needed is not None and memory is not None and needed.ram.high > memory
    seconds = needed.seconds if needed else None
    line = f"The recipe best keeps the size and tunes the rounding longest: {_time(seconds)}."
    if needed is not None and memory is not None and tight:
        line += f" Low-memory mode is on, as it might need {human(needed.ram.high)} and {human(memory)} are free."
    if scheme.quantized and scheme.bits <= 3:
        line += f" At {scheme.bits} bits a smaller group or asymmetric ranges help as well, for a little more size."
    return Suggestion(line, recipe="best", low_memory=True if tight else None)


def fast(scheme: LayerScheme, quick: Range | None) -> Suggestion:
    """The recipe `quick`, or plain rounding where `quick` may take over an hour and at least 4 bits bear that.

    Args:
        quick: seconds of a run with `quick`; None while that is not known.
    """
    if quick is not None and quick.high > PATIENCE and scheme.bits >= 4:
        return Suggestion(
            f"Plain rounding (rtn) is done soon; quick would take {time_range(quick.low, quick.high)} here. "
            "It loses more than tuning does.",
            recipe="rtn",
        )
    line = f"The recipe quick takes few short texts and few steps: {_time(quick)}."
    if scheme.bits <= 3:
        line += f" At {scheme.bits} bits that shows; best is for when there is time."
    return Suggestion(line, recipe="quick")


@dataclass(frozen=True)
class _Layers:
    """How many layers of the blocks have which inputs, outputs and bytes; and the bytes of all tensors."""

    shapes: Counter[tuple[int, int, int]]
    source: int

    @staticmethod
    def of(tree: ModelTree) -> _Layers:
        linears = (linear for linear in tree.linears if linear.block >= 0)
        shapes = Counter(
            (linear.in_features, linear.out_features, tree.tensors[f"{linear.name}.weight"].nbytes)
            for linear in linears
        )
        return _Layers(shapes, sum(info.nbytes for info in tree.tensors.values()))


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
        return f"Even {label} would fit, with {human(larger.total)}."
    return f"With {label} it would be {human(larger.total)}."


def _time(seconds: Range | None) -> str:
    if seconds is None:
        return "how long that takes is known once this machine has been measured"
    return f"{time_range(seconds.low, seconds.high)} by estimate"


def _channels(tree: ModelTree) -> int:
    """Channels of the keys of a block: key-value heads times their width; the hidden width if nothing says less."""
    hidden = _number(tree, "hidden_size", "n_embd")
    heads = _number(tree, "num_attention_heads", "n_head")
    width = _number(tree, "head_dim") or (hidden // heads if heads else 0)
    shared = _number(tree, "num_key_value_heads") or heads
    return shared * width or hidden


def _number(tree: ModelTree, *keys: str) -> int:
    """The first of these that the config gives as a positive whole number; 0 where it gives none."""
    config = text_config(tree.config)
    values = (config.get(key) for key in keys)
    return next((value for value in values if type(value) is int and value > 0), 0)
