"""The contents of a GGUF file for a model, before anything is written: tensors, metadata and tokenizer.

The types of the matrices are given, and bytes of block types come from the caller; only floating-point tensors are
converted here.
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
from core.formats.gguf.file import DTYPES, Entry, GgufWriter, StoredEntry, TensorSlot, header_bytes
from core.formats.gguf.metadata import file_type, metadata
from core.formats.gguf.tensor_map import MappedTensor, TensorMap, map_tensors
from core.formats.gguf.tokenizer import tokenizer
from core.formats.gguf.types import FLOATS
from core.model.general import read_facts
from core.model.tree import ModelTree
from core.model.weights import TensorStore

_CHUNK: Final = 1 << 22
"""Most weights of a matrix in memory at once."""


@dataclass(frozen=True)
class Export:
    """The contents of a file.

    Attributes:
        tensor_map: place of each tensor of the checkpoint.
        slots: all tensors of the file, in order.
        entries: all metadata.
        notes: for the user, one sentence each.
    """

    tensor_map: TensorMap
    slots: tuple[TensorSlot, ...]
    entries: tuple[Entry | StoredEntry, ...]
    notes: tuple[str, ...]

    @cached_property
    def types(self) -> dict[str, str]:
        """Type in the file of each linear layer, or of each tensor that is none, by name."""
        return {
            item.linear or item.source: slot.type
            for item, slot in zip(self.tensor_map.mapped, self.slots, strict=False)
        }

    @cached_property
    def of_linear(self) -> dict[str, MappedTensor]:
        """Place of each matrix by its name in a bits map."""
        return {item.linear: item for item in self.tensor_map.mapped if item.linear}

    @cached_property
    def nbytes(self) -> int:
        """Bytes of the whole file."""
        return header_bytes(self.entries, self.slots) + sum(-(-slot.nbytes // 32) * 32 for slot in self.slots)

    def writer(self, path: Path) -> GgufWriter:
        """Open the file for writing."""
        return GgufWriter(path, self.entries, self.slots)

    def write_computed(self, writer: GgufWriter) -> None:
        """Write the tensors that follow from the config alone."""
        for name, values in self.tensor_map.computed.items():
            writer.write(name, torch.tensor(values, dtype=torch.float32))

    def write_plain(
        self, writer: GgufWriter, placed: MappedTensor, store: TensorStore, should_stop: ShouldStop
    ) -> None:
        """Write one floating-point tensor of the checkpoint, in pieces.

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
    """Return the contents of a GGUF file of a model.

    Args:
        tree: of the original, unquantized checkpoint.
        folder: of the source, with tokenizer and config files.
        label: name of the model, a Hub id where there is one.
        types: type in the file of linear layers and the embedding, by name without `.weight`. Other matrices keep their
            floating-point type; tensors that are no matrices are always `f32`.
        mix: part of the format's name after `gguf:`, for `general.file_type`.
        separate_head: a tied model gets an output matrix besides the embedding.

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
    """Yield a tensor as the file has it, of type `kind` (`f32`, `f16` or `bf16`), some rows at a time.

    Raises:
        ValueError: `kind` is a block type.
        Cancelled: `should_stop` said so.
    """
    if kind not in FLOATS:
        raise ValueError(f"{placed.source} cannot be copied as {kind}")
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
