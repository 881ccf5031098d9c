"""Choice of a runner for an opened checkpoint, and loading of its weights.

The runners are tried in this order: llama.cpp if it was requested, the native program on a CPU, and a transformers
model whose layers are computed by the backends. A runner that cannot be used is not an error; the table of backends
gives the reason.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch

from core.control import ShouldStop
from core.errors import MissingDependency, UnsupportedModel
from core.events import Emit, Log
from core.formats.dense_store import dense_store
from core.formats.stored import Checkpoint
from core.hub.source import ModelSource
from core.inference.backends import llama_cpp
from core.inference.backends.backend import BackendRow
from core.inference.backends.choose import AUTO, NATIVE, WHOLE, BackendChoice, choose, whole_rows
from core.inference.devices import physical_cores, probe_dtype
from core.inference.layers import Builder, LoadProgress, check_shapes, facts_of, fill, needed_bytes, plain_linears
from core.inference.machine import Device
from core.inference.memory import check_room
from core.inference.runners.runner import Runner
from core.inference.runners.stepping import open_runner
from core.model.architectures.config import head_dim, num_kv_heads
from core.model.context import ASSUMED, context_length
from core.model.skeleton import Skeleton, build_skeleton
from core.model.towers import text_config
from core.model.tree import ModelTree

_CACHE_SHARE: Final = 4
"""A cache without a requested length takes at most 1 / _CACHE_SHARE of the free memory."""
_WITHOUT_KEYS: Final = ("linear", "mamba", "conv", "recurrent", "mlp", "moe")
"""Parts of the names of layer types without keys and values."""
_MIN_CONTEXT: Final = 1024
"""Minimum length of such a cache, in tokens."""
_BROKEN: Final = (MissingDependency, UnsupportedModel, NotImplementedError)


@dataclass(frozen=True)
class LoadPlan:
    """Inputs of `start`.

    Attributes:
        source: location and label of the model.
        checkpoint: the opened model.
        tree: module tree of the checkpoint.
        device: device to run on.
        backend: one of `choose.NAMES`.
        dtype: name of a torch dtype, or None for the fastest safe one.
        context: length of the cache in tokens.
        emit: receives `Log` and `Progress` events.
        should_stop: polled while loading.
        pictures: the model can read pictures, which is only possible with a transformers model.
    """

    source: ModelSource
    checkpoint: Checkpoint
    tree: ModelTree
    device: Device
    backend: str
    dtype: str | None
    context: int
    emit: Emit
    should_stop: ShouldStop
    pictures: bool = False


@dataclass(frozen=True)
class StartedRunner:
    """A runner, the table of backends with the number of layers each computes, and the name of the compute dtype."""

    runner: Runner
    rows: tuple[BackendRow, ...]
    dtype: str


def start(opening: LoadPlan) -> StartedRunner:
    """Load the weights into the first runner that can run the model.

    Raises:
        UnsupportedModel, CorruptFile, ModelNotFound: the model cannot be read or run.
        OutOfMemory: the model does not fit into memory.
        Cancelled: `should_stop` returned True.
    """
    reasons: dict[str, str] = {}
    if opening.backend == WHOLE:
        found = _by_llama_cpp(opening, reasons)
        if found is not None:
            return found
    skeleton = build_skeleton(opening.tree, dense_store(opening.checkpoint))
    check_shapes(skeleton, opening.checkpoint)
    if opening.backend in (AUTO, NATIVE, WHOLE) and opening.device.kind == "cpu":
        found = _by_native(opening, skeleton, reasons)
        if found is not None:
            return found
        # A native program that fails does not modify the skeleton, whose parameters are still on meta.
    return _by_modules(opening, skeleton, reasons)


def context_for(config: Mapping[str, Any], device: Device, wanted: int | None) -> int:
    """Return the length of the cache in tokens: `wanted`, limited to the context length of the model.

    Without `wanted` the cache is also limited to a share of the free memory, because some models have a context of a
    million tokens.
    """
    own = context_length(config) or ASSUMED
    if wanted and wanted > 0:
        return min(own, wanted)
    token = _token_bytes(text_config(config))
    if not token or not device.total_memory:
        return own
    fitting = device.free_memory // _CACHE_SHARE // token
    return min(own, max(_MIN_CONTEXT, fitting // 256 * 256))


def _token_bytes(config: Any) -> int:
    """Return the bytes of one token's keys and values in 16 bits, or 0 if the config lacks a value.

    transformers stores the keys and values of multi-head latent attention (DeepSeek) unpacked, of every head.
    """
    try:
        kinds = config.get("layer_types") or config.get("layers_block_type") or [""] * int(config["num_hidden_layers"])
        layers = sum(not any(word in str(kind) for word in _WITHOUT_KEYS) for kind in kinds)
        if config.get("kv_lora_rank"):
            width = sum(int(config[key]) for key in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
            return 2 * layers * int(config["num_attention_heads"]) * width
        return 2 * 2 * layers * num_kv_heads(config) * head_dim(config)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return 0


def _by_llama_cpp(opening: LoadPlan, reasons: dict[str, str]) -> StartedRunner | None:
    """Open the model with llama.cpp, or return None and store the reason in `reasons`."""
    problem = llama_cpp.missing(opening.device)
    reasons[WHOLE] = problem.reason if problem else llama_cpp.refusal(opening.source.place)
    if reasons[WHOLE]:
        opening.emit(Log("warning", f"llama.cpp is not used. {reasons[WHOLE]}"))
        return None
    from core.inference.runners.llama_cpp import open_runner

    runner = open_runner(
        opening.source.place, opening.context, physical_cores(), opening.device.kind, opening.should_stop
    )
    return StartedRunner(runner, whole_rows(opening.device, WHOLE, _all_linears(opening), reasons), "float16")


def _by_native(opening: LoadPlan, skeleton: Skeleton, reasons: dict[str, str]) -> StartedRunner | None:
    """Load the model into the native program, or return None and store the reason in `reasons`."""
    from core.inference.native import build, library
    from core.inference.runners import native

    if not build.is_there():
        opening.emit(Log("info", "Compiling the kernels for this processor. This is done only once."))
    reason = library.why_not() or native.refusal(skeleton) or _not_packed(opening)
    if opening.pictures and opening.backend == AUTO:
        reason = reason or "It cannot read pictures, which this model can; choose it for chats without pictures."
    if not reason:
        check_room(opening.device, needed_bytes(opening.checkpoint, None, None), f"{opening.source.label}")
        progress = LoadProgress(opening.emit)
        try:
            runner = native.build(
                opening.checkpoint,
                skeleton,
                opening.context,
                threads=physical_cores(),
                progress=progress,
                should_stop=opening.should_stop,
            )
            rows = whole_rows(opening.device, NATIVE, _all_linears(opening), reasons)
            return StartedRunner(runner, rows, "float32")
        except _BROKEN as error:
            reason = str(error)
    if opening.backend == NATIVE:
        opening.emit(Log("warning", f"The native program is not used. {reason}"))
    reasons[NATIVE] = reason
    return None


def _not_packed(opening: LoadPlan) -> str:
    """Return the reason why the native kernels do not support one of the layers, or ""."""
    from core.inference.native import matrix

    return next((why for facts in facts_of(opening.checkpoint, opening.tree) if (why := matrix.refusal(facts))), "")


def _by_modules(opening: LoadPlan, skeleton: Skeleton, reasons: dict[str, str]) -> StartedRunner:
    """Load a transformers model whose quantized layers are computed by the backends."""
    checkpoint, device = opening.checkpoint, opening.device
    # Decoding has one row per step; a dtype that is fast for many rows can be many times slower for one.
    name = opening.dtype or probe_dtype(device, rows=1).dtype
    dtype = getattr(torch, name)
    wanted = AUTO if opening.backend == WHOLE else opening.backend
    choice: BackendChoice = choose(facts_of(checkpoint, opening.tree), device, dtype, wanted)
    check_room(device, needed_bytes(checkpoint, choice, dtype), opening.source.label)
    builder = Builder(choice, dtype, opening.emit)
    fill(skeleton, checkpoint, builder, dtype, torch.device(device.id), opening.emit, opening.should_stop)
    # Linears that are not quantized count as `dense`.
    choice.taken["dense"] += plain_linears(checkpoint, opening.tree)
    exact = name == "float32" and choice.taken["dense"] == sum(choice.taken.values())
    towers = functools.partial(skeleton.with_towers, dtype, torch.device(device.id))
    runner = open_runner(
        skeleton.model, opening.context, device.id, name, exact=exact, towers=towers, emit=opening.emit
    )
    return StartedRunner(runner, choice.rows(reasons), name)


def _all_linears(opening: LoadPlan) -> int:
    return len(opening.checkpoint.schemes) + plain_linears(opening.checkpoint, opening.tree)
