"""Loading any model that Bitwright can open, quantized or not, ready to answer on one device.

Quantized layers are dequantized once into the compute dtype: exact, portable and as fast as the original; kernels
that compute on the packed integers come with the chat backends. Knows nothing of text or sampling.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from core.errors import Cancelled, UnsupportedModel
from core.events import Emit
from core.formats.gguf.reader import GgufCheckpoint
from core.formats.opened import open_checkpoint
from core.formats.stored import Checkpoint
from core.inference.devices import choose, probe_dtype
from core.model.headers import read_folder
from core.model.linear import TunedLinear
from core.model.skeleton import Skeleton, build_skeleton
from core.model.source import open_source
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


def load_model(
    model: str,
    device: str = "auto",
    dtype: str | None = None,
    *,
    emit: Emit = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
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
    chosen = choose(device)
    # Words come one at a time: a dtype that is fast for many rows can be many times slower for one.
    name = dtype or probe_dtype(chosen, rows=1).dtype
    kind, place = getattr(torch, name), torch.device(chosen.id)
    checkpoint = open_checkpoint(source.place, should_stop)
    skeleton = build_skeleton(open_tree(checkpoint), checkpoint.store)
    _fill(skeleton, checkpoint, kind, place, should_stop)
    schemes: dict[str, int] = {}
    for scheme in checkpoint.schemes.values():
        schemes[scheme.label()] = schemes.get(scheme.label(), 0) + 1
    return LoadedModel(
        model=skeleton.model,
        tokenizer=load_tokenizer(checkpoint.folder),
        folder=checkpoint.folder,
        label=source.label,
        device=chosen.id,
        dtype=name,
        schemes=schemes,
        weight_bytes=_stored_bytes(checkpoint),
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


def _stored_bytes(checkpoint: Checkpoint) -> int:
    """Bytes of all tensors on disk."""
    if isinstance(checkpoint, GgufCheckpoint):
        return checkpoint.nbytes
    return sum(info.nbytes for info in read_folder(checkpoint.folder).values())


def _fill(
    skeleton: Skeleton,
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    device: torch.device,
    should_stop: Callable[[], bool],
) -> None:
    names = list(checkpoint.schemes)
    embedding, head = skeleton.ends()
    skip = [skeleton.module_name(name) for name in names]
    if skeleton.tree.tied:
        skip.append(head)
    skeleton.fill("", dtype, device, skip=(skeleton.stack, *skip))
    for block in range(skeleton.tree.blocks):
        if should_stop():
            raise Cancelled("Loading was cancelled.")
        skeleton.fill(f"{skeleton.stack}.{block}", dtype, device, skip=tuple(skip))
    for name in names:
        if should_stop():
            raise Cancelled("Loading was cancelled.")
        weight = checkpoint.layer(name).dequantize().to(device, dtype)
        bias = f"{name}.bias"
        value = skeleton.store.get(bias).to(device, dtype) if bias in skeleton.store else None
        skeleton.model.set_submodule(skeleton.module_name(name), TunedLinear(weight, value))
    if skeleton.tree.tied:
        skeleton.model.get_output_embeddings().weight = skeleton.model.get_submodule(embedding).weight
