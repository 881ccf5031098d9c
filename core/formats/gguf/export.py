"""A model of a checkpoint as a GGUF file, before anything is written: tensors, metadata, tokenizer in one value.

Puts together what the modules beside it know. Knows nothing of quantizing: which type a matrix has is given, and
whoever writes a block type brings its bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from core.control import ShouldStop, check_stop, never
from core.formats.gguf.file import DTYPES, Entry, GgufWriter, TensorSlot, header_bytes
from core.formats.gguf.metadata import file_type, metadata
from core.formats.gguf.tensor_map import MappedTensor, TensorMap, map_tensors
from core.formats.gguf.tokenizer import tokenizer
from core.formats.gguf.types import FLOATS
from core.model.general import read_facts
from core.model.tree import ModelTree
from core.model.weights import TensorStore

_CHUNK: Final = 1 << 22
"""Weights of a matrix that are in memory at once."""


@dataclass(frozen=True)
class Export:
    """What a file will hold.

    Attributes:
        tensor_map: where each tensor of the checkpoint goes.
        slots: all tensors of the file, in their order.
        entries: the whole metadata.
        notes: what a user should know, one sentence each.
    """

    tensor_map: TensorMap
    slots: tuple[TensorSlot, ...]
    entries: tuple[Entry, ...]
    notes: tuple[str, ...]

    @cached_property
    def types(self) -> dict[str, str]:
        """The checkpoint's layer or tensor -> its type in the file; keys are `linear`, or `source` without one."""
        return {
            item.linear or item.source: slot.type
            for item, slot in zip(self.tensor_map.mapped, self.slots, strict=False)
        }

    @cached_property
    def of_linear(self) -> dict[str, MappedTensor]:
        """Name of each matrix, as a bits map has it -> its place."""
        return {item.linear: item for item in self.tensor_map.mapped if item.linear}

    @cached_property
    def nbytes(self) -> int:
        """Bytes of the whole file."""
        return header_bytes(self.entries, self.slots) + sum(-(-slot.nbytes // 32) * 32 for slot in self.slots)

    def writer(self, path: Path) -> GgufWriter:
        """Begin the file."""
        return GgufWriter(path, self.entries, self.slots)

    def write_computed(self, writer: GgufWriter) -> None:
        """Write the tensors that follow from the config alone."""
        for name, values in self.tensor_map.computed.items():
            writer.write(name, torch.tensor(values, dtype=torch.float32))

    def write_plain(
        self, writer: GgufWriter, placed: MappedTensor, store: TensorStore, should_stop: ShouldStop
    ) -> None:
        """Write one tensor of a floating-point type out of the checkpoint, in pieces.

        Raises:
            Cancelled: `should_stop` said so.
        """
        kind = self.types[placed.linear or placed.source]
        writer.write(placed.name, plain_pieces(placed, kind, store, should_stop))


def export(
    tree: ModelTree,
    folder: Path,
    label: str,
    types: Mapping[str, str],
    *,
    mix: str = "",
    separate_head: bool = False,
) -> Export:
    """What a GGUF file of a model holds.

    Args:
        tree: of the source's checkpoint, as if nothing were quantized.
        folder: of the source, with tokenizer and config files.
        label: name of the model, a Hub id where there is one.
        types: name of a matrix (a linear's, the embedding's; without `.weight`) -> its type in the file. One that is
            not named keeps the floating-point type that it has. What is no matrix is `f32` always.
        mix: what follows `gguf:`, for the file's own name of its type.
        separate_head: a tied model gets an output matrix of its own.

    Raises:
        UnsupportedModel: an architecture, a detail of one, or a tokenizer that is not written.
    """
    tensor_map = map_tensors(tree, separate_head=separate_head)
    slots, weights = [], dict[str, int]()
    for item in tensor_map.mapped:
        kind = "f32"
        if item.is_matrix:
            own = {"F16": "f16", "BF16": "bf16"}.get(tree.tensors[item.source].dtype, "f32")
            kind = types.get(item.linear, own)
            weights[kind] = weights.get(kind, 0) + math.prod(item.shape)
        slots.append(TensorSlot(item.name, kind, item.shape))
    slots += [TensorSlot(name, "f32", (len(values),)) for name, values in tensor_map.computed.items()]
    named = read_facts(folder).get("name")
    name = named if isinstance(named, str) else label.rpartition("/")[2] or label
    vocabulary = tokenizer(folder, tree.config, slots[0].shape[0], name)
    entries = metadata(tensor_map, label, vocabulary.name, folder, file_type(weights, mix), tree.parameters)
    return Export(tensor_map, tuple(slots), (*entries, *vocabulary.entries), (*tensor_map.notes, *vocabulary.notes))


def plain_pieces(
    placed: MappedTensor, kind: str, store: TensorStore, should_stop: ShouldStop = never
) -> Iterator[Tensor]:
    """A tensor of the checkpoint as the file has it, of type `kind` (one of `f32`, `f16`, `bf16`), some rows at a time.

    Raises:
        ValueError: `kind` is a block type.
        Cancelled: `should_stop` said so.
    """
    if kind not in FLOATS:
        raise ValueError(f"{placed.source} is to be {kind}, which is not copied")
    if not placed.is_matrix:
        yield placed.store(store.get(placed.source)).to(DTYPES[kind])
        return
    rows, columns = placed.shape
    step = max(1, _CHUNK // columns)
    for start in range(0, rows, step):
        check_stop(should_stop, "Stopped while writing.")
        index = torch.arange(start, min(rows, start + step))
        index = index if placed.order is None else placed.order[index]
        yield store.rows(placed.source, index).to(DTYPES[kind])
