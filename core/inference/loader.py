"""Loading any model that Bitwright can open, quantized or not, ready to answer on one device.

`load_model` gives a transformers model with every weight worked out: exact, and what measurements use. `load_runner`
gives a runner that is as fast as this machine allows. Knows nothing of text or sampling.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core.control import ShouldStop, never
from core.errors import DeviceProblem, UnsupportedModel
from core.events import Emit, Log
from core.formats.gguf.reader import GgufCheckpoint
from core.formats.opened import open_checkpoint, open_source
from core.formats.stored import Checkpoint, Stored
from core.inference.backends.backend import BackendRow
from core.inference.backends.choose import AUTO, check_name
from core.inference.backends.portable import dense_linear
from core.inference.backends.probing import first_line
from core.inference.devices import FAILURES, choose_or_cpu, probe_dtype
from core.inference.devices import choose as choose_device
from core.inference.layers import fill
from core.inference.memory import give_back_memory
from core.inference.runners.runner import Runner
from core.inference.starting import Opening, context_for, start
from core.model.headers import read_folder
from core.model.skeleton import build_skeleton
from core.model.tokenizer import load_tokenizer
from core.model.tree import ModelTree, build_tree


@dataclass(frozen=True)
class LoadedModel:
    """A model that can run.

    Attributes:
        model: the transformers causal LM, weights in `dtype` on `device`, without gradients.
        tokenizer: the transformers tokenizer.
        folder: where it was read from; label: what the user calls it.
        schemes: how many linears have each scheme, by label; empty for a model that is not quantized.
        weight_bytes: of the tensors on disk.
    """

    model: Any
    tokenizer: Any
    folder: Path
    label: str
    device: str
    dtype: str
    schemes: dict[str, int]
    weight_bytes: int


@dataclass(frozen=True)
class Loaded:
    """A model that can run token by token.

    Attributes:
        runner: the model; its `close` gives the memory back.
        tokenizer: the transformers tokenizer.
        folder: with the tokenizer and the config; label: what the user calls the model.
        device: torch's name of where it runs; device_name: its maker's.
        device_note: why that is another device than was asked for, as one sentence; "" if it is not.
        dtype: what is computed in, by torch's name.
        schemes: how many linears have each scheme, by label; empty for a model that is not quantized.
        weight_bytes: of the tensors on disk.
        rows: the table of backends, with the layers that each computes.
    """

    runner: Runner
    tokenizer: Any
    folder: Path
    label: str
    device: str
    device_name: str
    device_note: str
    dtype: str
    schemes: dict[str, int]
    weight_bytes: int
    rows: tuple[BackendRow, ...]

    @property
    def context(self) -> int:
        """Tokens that fit."""
        return self.runner.context

    @property
    def counts(self) -> dict[str, int]:
        """How many linears each backend computes, without those that compute none."""
        return {row.name: row.layers for row in self.rows if row.layers}

    @property
    def memory_bytes(self) -> int:
        """Of weights and cache as they lie in memory now."""
        return self.runner.memory_bytes


def load_model(
    model: str,
    device: str = "auto",
    dtype: str | None = None,
    *,
    emit: Emit = lambda event: None,
    should_stop: ShouldStop = never,
) -> LoadedModel:
    """Load `model` (Hub id, folder, GGUF file or `demo`).

    Args:
        device: `auto`, `cpu`, `cuda:N`, `xpu:N`.
        dtype: name of a torch dtype; None measures which is fast on the device.

    Raises:
        BitwrightError: not there, not readable, or not of a kind that runs.
        Cancelled: `should_stop` said so.
    """
    source = open_source(model, emit, should_stop, imported=False)
    chosen = choose_device(device)
    # Words come one at a time: a dtype that is fast for many rows can be many times slower for one.
    name = dtype or probe_dtype(chosen, rows=1).dtype
    kind, place = getattr(torch, name), torch.device(chosen.id)
    checkpoint = open_checkpoint(source.place, should_stop)
    skeleton = build_skeleton(open_tree(checkpoint), checkpoint.store)

    def dense(layer: Stored, bias: Tensor | None) -> nn.Module:
        return dense_linear(layer.dequantize().to(place, kind), bias)

    fill(skeleton, checkpoint, dense, kind, place, lambda event: None, should_stop)
    return LoadedModel(
        model=skeleton.model,
        tokenizer=load_tokenizer(checkpoint.folder),
        folder=checkpoint.folder,
        label=source.label,
        device=chosen.id,
        dtype=name,
        schemes=_counted(checkpoint),
        weight_bytes=_stored_bytes(checkpoint),
    )


def load_runner(
    model: str,
    device: str = "auto",
    backend: str = AUTO,
    dtype: str | None = None,
    context: int | None = None,
    *,
    emit: Emit = lambda event: None,
    should_stop: ShouldStop = never,
) -> Loaded:
    """Load `model` (Hub id, folder, GGUF file or `demo`) to run token by token, as fast as it goes here.

    Args:
        device: `auto`, or an id or stable id of a device; one that is not there or does not work becomes the CPU.
        backend: one of `core.inference.backends.choose.NAMES`; layers that it cannot take go to the next that can.
        dtype: name of a torch dtype to compute in; None takes the fastest that is safe.
        context: tokens that shall fit; None, or more than the model reads, is what the model reads.
        emit: gets `Log` and `Progress` events.

    Raises:
        BitwrightError: not there, not readable, or not of a kind that runs; OutOfMemory where it does not fit.
        Cancelled: `should_stop` said so.
    """
    check_name(backend)
    chosen, note = choose_or_cpu(device)
    source = open_source(model, emit, should_stop, imported=False)
    checkpoint = open_checkpoint(source.place, should_stop)
    # A vocabulary of 262,144 tokens takes several times its size while it is unpacked, and while it is read.
    folder = checkpoint.folder
    give_back_memory()
    tokenizer = load_tokenizer(folder)
    give_back_memory()
    room = context_for(checkpoint.config, chosen, context)
    opening = Opening(source, checkpoint, open_tree(checkpoint), chosen, backend, dtype, room, emit, should_stop)
    try:
        started = start(opening)
    except (DeviceProblem, *FAILURES) as error:
        if chosen.kind == "cpu":
            raise
        note = f"{chosen.name} failed ({first_line(error)}); the CPU computes instead."
        emit(Log("warning", note))
        chosen, _ = choose_or_cpu("cpu")
        started = start(replace(opening, device=chosen, context=context_for(checkpoint.config, chosen, context)))
    return Loaded(
        runner=started.runner,
        tokenizer=tokenizer,
        folder=checkpoint.folder,
        label=source.label,
        device=chosen.id,
        device_name=chosen.name,
        device_note=note,
        dtype=started.dtype,
        schemes=_counted(checkpoint),
        weight_bytes=_stored_bytes(checkpoint),
        rows=started.rows,
    )


def open_tree(checkpoint: Checkpoint) -> ModelTree:
    """The tree of a checkpoint; that of a quantized one is the tree its original had.

    Raises:
        UnsupportedModel: a kind that does not run here.
    """
    plain = {key: value for key, value in checkpoint.config.items() if key != "quantization_config"}
    tree = build_tree(plain, checkpoint.dense_table())
    if tree.refusal:
        raise UnsupportedModel(tree.refusal, "`bitwright inspect` shows what is in it.")
    return tree


def _counted(checkpoint: Checkpoint) -> dict[str, int]:
    """How many linears have each scheme, by its label."""
    schemes: dict[str, int] = {}
    for scheme in checkpoint.schemes.values():
        schemes[scheme.label()] = schemes.get(scheme.label(), 0) + 1
    return schemes


def _stored_bytes(checkpoint: Checkpoint) -> int:
    """Bytes of all tensors on disk."""
    if isinstance(checkpoint, GgufCheckpoint):
        return checkpoint.nbytes
    return sum(info.nbytes for info in read_folder(checkpoint.folder).values())
