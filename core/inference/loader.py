"""Loading of models for inference on one device, quantized or not.

`load_model` returns a transformers model with dequantized weights, which is exact and used for measurements.
`load_runner` returns the fastest runner available on the machine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core.control import ShouldStop, never
from core.errors import BitwrightError, DeviceProblem, UnsupportedModel
from core.events import Emit, Log
from core.formats.dense_store import dense_store
from core.formats.gguf.reader import GgufCheckpoint
from core.formats.opened import open_checkpoint, open_source
from core.formats.plain import PlainCheckpoint
from core.formats.stored import Checkpoint, StoredLayer
from core.inference.backends.backend import BackendRow
from core.inference.backends.choose import AUTO, check_name
from core.inference.backends.portable import dense_linear
from core.inference.backends.probing import first_line
from core.inference.devices import FAILURES, choose_or_cpu, probe_dtype
from core.inference.devices import choose as choose_device
from core.inference.layers import fill
from core.inference.memory import give_back_memory
from core.inference.runners.module import picture_refusal
from core.inference.runners.runner import Runner
from core.inference.starting import LoadPlan, context_for, start
from core.model.folder import check_architecture
from core.model.headers import read_folder
from core.model.processor import PictureProcessor, load_processor
from core.model.skeleton import build_skeleton
from core.model.tokenizer import load_tokenizer
from core.model.tree import ModelTree, build_tree


@dataclass(frozen=True)
class LoadedModel:
    """A transformers model with dequantized weights.

    Attributes:
        model: the transformers causal LM, with weights in `dtype` on `device`, without gradients.
        tokenizer: the transformers tokenizer.
        folder: folder of the checkpoint.
        label: name of the model, for display.
        schemes: number of linears by scheme label; empty for a model that is not quantized.
        weight_bytes: size of the tensors on disk.
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
class LoadedRunner:
    """A model loaded for generation.

    Attributes:
        runner: the model; its `close` frees the memory.
        tokenizer: the transformers tokenizer.
        folder: folder of the tokenizer and the config.
        label: name of the model, for display.
        device: torch's device string.
        device_name: product name of the device.
        device_note: the reason why another device than the requested one is used, as one sentence, or "".
        dtype: name of the torch dtype of the computation.
        schemes: number of linears by scheme label; empty for a model that is not quantized.
        weight_bytes: size of the tensors on disk.
        unpacked: format of quantized weights that were unpacked to 16 bits, such as `MXFP4`; "" for others.
        rows: table of backends, with the number of layers that each computes.
        processor: of the pictures; None if the model or the runner cannot read any.
        pictures_note: reason, as a sentence, why a model that can see pictures cannot read them here; or "".
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
    unpacked: str
    rows: tuple[BackendRow, ...]
    processor: PictureProcessor | None = None
    pictures_note: str = ""

    @property
    def context(self) -> int:
        """Length of the cache, in tokens."""
        return self.runner.context

    @property
    def counts(self) -> dict[str, int]:
        """Number of linears by backend, without the backends that compute none."""
        return {row.name: row.layers for row in self.rows if row.layers}

    @property
    def memory_bytes(self) -> int:
        """Current memory of weights and cache."""
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
        dtype: name of a torch dtype; None measures which one is fast on the device.

    Raises:
        BitwrightError: the model does not exist, cannot be read or is of an unsupported kind.
        Cancelled: `should_stop` returned True.
    """
    source = open_source(model, emit, should_stop, imported=False)
    chosen = choose_device(device)
    # Decoding has one row per step; a dtype that is fast for many rows can be many times slower for one.
    name = dtype or probe_dtype(chosen, rows=1).dtype
    torch_dtype, torch_device = getattr(torch, name), torch.device(chosen.id)
    checkpoint = _open(source.place, emit, should_stop)
    skeleton = build_skeleton(open_tree(checkpoint), dense_store(checkpoint))

    def dense(layer: StoredLayer, bias: Tensor | None) -> nn.Module:
        return dense_linear(layer.dequantize().to(torch_device, torch_dtype), bias)

    fill(skeleton, checkpoint, dense, torch_dtype, torch_device, lambda event: None, should_stop, packed_parts=False)
    return LoadedModel(
        model=skeleton.model,
        tokenizer=load_tokenizer(checkpoint.folder),
        folder=checkpoint.folder,
        label=source.label,
        device=chosen.id,
        dtype=name,
        schemes=_count_schemes(checkpoint),
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
) -> LoadedRunner:
    """Load `model` (Hub id, folder, GGUF file or `demo`) into the fastest runner available.

    Args:
        device: `auto`, or an id or stable id of a device; the CPU is used if the device is missing or fails.
        backend: one of `core.inference.backends.choose.NAMES`; a layer that it does not support is computed by the
            next backend that does.
        dtype: name of a torch dtype to compute in; None selects the fastest safe one.
        context: length of the cache in tokens, at most the model's context length, which is also the default.
        emit: receives `Log` and `Progress` events.

    Raises:
        BitwrightError: the model does not exist, cannot be read or is of an unsupported kind.
        OutOfMemory: the model does not fit into memory.
        Cancelled: `should_stop` returned True.
    """
    check_name(backend)
    chosen, note = choose_or_cpu(device)
    source = open_source(model, emit, should_stop, imported=False)
    checkpoint = _open(source.place, emit, should_stop)
    tokenizer = _load_tokenizer(checkpoint.folder)
    room = context_for(checkpoint.config, chosen, context)
    tree = open_tree(checkpoint)
    processor, pictures_note = find_processor(tree, checkpoint.folder, tokenizer)
    opening = LoadPlan(source, checkpoint, tree, chosen, backend, dtype, room, emit, should_stop, processor is not None)
    try:
        started = start(opening)
    except (DeviceProblem, *FAILURES) as error:
        if chosen.kind == "cpu":
            raise
        note = f"{chosen.name} failed ({first_line(error)}); using the CPU instead."
        emit(Log("warning", note))
        chosen, _ = choose_or_cpu("cpu")
        started = start(replace(opening, device=chosen, context=context_for(checkpoint.config, chosen, context)))
    pictures_note = pictures_note or (picture_refusal(started.runner) if processor is not None else "")
    return LoadedRunner(
        runner=started.runner,
        tokenizer=tokenizer,
        folder=checkpoint.folder,
        label=source.label,
        device=chosen.id,
        device_name=chosen.name,
        device_note=note,
        dtype=started.dtype,
        schemes=_count_schemes(checkpoint),
        weight_bytes=_stored_bytes(checkpoint),
        unpacked=checkpoint.source.kind if isinstance(checkpoint, PlainCheckpoint) else "",
        rows=started.rows,
        processor=None if pictures_note else processor,
        pictures_note=pictures_note,
    )


def _load_tokenizer(folder: Path) -> Any:
    """Load a tokenizer and return freed memory: one of 262,144 tokens allocates several times its size."""
    give_back_memory()
    tokenizer = load_tokenizer(folder)
    give_back_memory()
    return tokenizer


def find_processor(tree: ModelTree, folder: Path, tokenizer: Any) -> tuple[PictureProcessor | None, str]:
    """Return the processor of a model with a vision tower, or else the reason, as a sentence, why it cannot be used.

    Both are missing for a model without a vision tower.
    """
    if not any(tower.kind == "vision" for tower in tree.towers):
        return None, ""
    try:
        return load_processor(folder, tokenizer), ""
    except BitwrightError as error:
        return None, str(error)


def open_tree(checkpoint: Checkpoint) -> ModelTree:
    """Return the module tree of a checkpoint; for a quantized one, the tree of its original.

    Raises:
        UnsupportedModel: the model is of an unsupported kind.
    """
    plain = {key: value for key, value in checkpoint.config.items() if key != "quantization_config"}
    tree = build_tree(plain, checkpoint.dense_table())
    if tree.refusal:
        raise UnsupportedModel(tree.refusal, "`bitwright inspect` shows what is in it.")
    return tree


def _open(place: Path, emit: Emit, should_stop: ShouldStop) -> Checkpoint:
    """Open a checkpoint of a known architecture, and tell if its weights are unpacked, which takes more memory."""
    checkpoint = open_checkpoint(place, should_stop)
    if not isinstance(checkpoint, GgufCheckpoint):  # llama.cpp also runs GGUF files of other architectures
        check_architecture(checkpoint.config)
    if isinstance(checkpoint, PlainCheckpoint) and checkpoint.source.note:
        emit(Log("info", checkpoint.source.note))
    return checkpoint


def _count_schemes(checkpoint: Checkpoint) -> dict[str, int]:
    """Return the number of linears by scheme label."""
    schemes: dict[str, int] = {}
    for scheme in checkpoint.schemes.values():
        schemes[scheme.label()] = schemes.get(scheme.label(), 0) + 1
    return schemes


def _stored_bytes(checkpoint: Checkpoint) -> int:
    """Return the size of all tensors on disk."""
    if isinstance(checkpoint, GgufCheckpoint):
        return checkpoint.nbytes
    return sum(info.nbytes for info in read_folder(checkpoint.folder).values())
