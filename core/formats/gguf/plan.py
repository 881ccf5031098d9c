"""The GGUF output format: planning, writing and verifying one GGUF file.

The contents of the file come from `export`, the types of tensors from `types` and `mixes`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from core.block_types import TYPES
from core.control import ShouldStop, check_stop
from core.errors import BadInput, VerificationFailed
from core.formats.gguf.blocks import BlockLinear
from core.formats.gguf.carry import carry
from core.formats.gguf.export import Export, export
from core.formats.gguf.file_types import read_file_types
from core.formats.gguf.metadata import entries_like
from core.formats.gguf.reader import GgufCheckpoint
from core.formats.gguf.rounding import round_to
from core.formats.gguf.tensor_map import MappedTensor, written_architecture
from core.formats.gguf.types import FLOATS, linear_type, other_type
from core.formats.holding import notes, problems
from core.formats.names import mix_of
from core.formats.quantized import QuantizedLinear
from core.formats.side_files import carry_over
from core.formats.stored import Checkpoint, StoredLayer
from core.model.parts import whole_name
from core.model.plans import LayerPlan
from core.model.tree import ModelTree
from core.model.weights import TensorStore

_PIECE: Final = 1 << 22
"""Most weights of an embedding processed at once."""


@dataclass(frozen=True)
class GgufPlan:
    """The plan of one GGUF file, a `stored.FormatPlan`.

    Attributes:
        name: of the format.
        layers: the quantized linears by name.
        contents: tensors, types and metadata of the file.
        file: its name.
        source_folder: of the source, with its config and tokenizer.
        notes: for the user, before the run.
        embedding_type: block type of the source's embedding, "" for none.
        min_zero: smallest zero point that the format can store.
    """

    name: str
    layers: Mapping[str, LayerPlan]
    contents: Export
    file: str
    source_folder: Path
    notes: tuple[str, ...]
    embedding_type: str = ""
    min_zero: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the whole file."""
        return self.contents.nbytes

    @cached_property
    def others(self) -> list[MappedTensor]:
        """The tensors that are not quantized layers."""
        return [item for item in self.contents.tensor_map.mapped if item.linear not in self.layers]

    @property
    def copied(self) -> list[str]:
        """Names of the source's tensors that are not quantized layers."""
        return [item.source for item in self.others]

    @property
    def rounded(self) -> dict[str, str]:
        """Block type of each tensor of `copied` that is rounded, by name."""
        kinds = {item.source: self.type_of(item) for item in self.others}
        return {name: kind for name, kind in kinds.items() if kind not in FLOATS and kind != self.embedding_type}

    def type_of(self, item: MappedTensor) -> str:
        """Return the type of a tensor in the file."""
        return self.contents.types[item.linear or item.source]

    def stored(self, layer: StoredLayer) -> BlockLinear:
        """Return the layer in its block type, converting plain integers losslessly.

        Raises:
            ValueError: the layer differs from the plan, or no block type represents it.
        """
        place = self.contents.of_linear[layer.name]
        kind = self.type_of(place)
        blocks = carry(layer) if isinstance(layer, QuantizedLinear) else layer
        if not isinstance(blocks, BlockLinear) or blocks.scheme.type != kind or blocks.ints.shape != place.shape:
            raise ValueError(f"{layer.name} was planned as {kind.upper()} {place.shape}")
        return blocks

    def writer(self, folder: Path) -> GgufOutput:
        """Return a writer of the output in an existing, empty folder.

        Raises:
            DiskFull, OutputProblem: the folder cannot take it.
        """
        return GgufOutput(self, folder)

    def open(self, folder: Path) -> GgufCheckpoint:
        """Open the finished output."""
        return GgufCheckpoint(folder / self.file, self.source_folder, self.contents.tensor_map)

    def check_rest(self, written: Checkpoint, source: TensorStore, should_stop: ShouldStop) -> None:
        """Check every other tensor against the source: equal, or as close as its block type allows.

        Raises:
            VerificationFailed: a tensor differs or is not finite.
            Cancelled: `should_stop` said so.
        """
        for item in self.others:
            kind = self.type_of(item)
            for rows in _pieces(item):
                check_stop(should_stop)
                theirs = _read(source, item, rows).float()
                ours = _read(written.store, item, rows).float()
                if not torch.isfinite(ours).all():
                    raise VerificationFailed(
                        f"{item.source} holds values that are not finite.", "Fetch the model again."
                    )
                exact = kind == self.embedding_type
                if not (torch.equal(ours, theirs) if exact else _same(item, kind, ours, theirs)):
                    raise VerificationFailed(f"{item.source} differs from the source model.", "Please report this.")


class GgufOutput:
    """A writer of one GGUF file, a `stored.FormatWriter`: layers in any order, then all other tensors."""

    def __init__(self, plan: GgufPlan, folder: Path) -> None:
        self._plan = plan
        self._folder = folder
        self._file = plan.contents.writer(folder / plan.file)

    def write(self, layer: StoredLayer) -> None:
        """Write one layer, rows in the file's order.

        Raises:
            ValueError: the layer differs from the plan, or was written before.
            DiskFull, OutputProblem: the file cannot take it.
        """
        blocks, place = self._plan.stored(layer), self._plan.contents.of_linear[layer.name]
        ordered = blocks if place.order is None else blocks.take(place.order)
        self._file.write(place.name, ordered.encode())

    def begin(self, source: Path) -> None:
        """Copy the license of the model in `source`; config, tokenizer and template are in the GGUF file.

        Raises:
            DiskFull, OutputProblem: the folder cannot take it.
        """
        carry_over(source, self._folder, legal_only=True)

    def finish(self, store: TensorStore, should_stop: ShouldStop) -> None:
        """Write all other tensors and close the file.

        Raises:
            ValueError: layers are missing.
            DiskFull, OutputProblem: the folder cannot take it.
            Cancelled: `should_stop` said so.
        """
        contents = self._plan.contents
        contents.write_computed(self._file)
        for item in self._plan.others:
            kind = self._plan.type_of(item)
            if kind in FLOATS:
                contents.write_plain(self._file, item, store, should_stop)
            else:
                self._file.write(item.name, _blocks(store, item, kind, should_stop))
        self._file.close()

    def abort(self) -> None:
        """Remove the file; does nothing after `finish` or `leave`."""
        self._file.abort()

    def leave(self) -> None:
        """Close the unfinished file and keep it."""
        self._file.leave()


def plan_gguf(
    name: str,
    tree: ModelTree,
    plans: Sequence[LayerPlan],
    source_folder: Path,
    label: str,
    embedding_type: str = "",
    like: str = "",
) -> GgufPlan:
    """Plan the GGUF file of a model with a resolved bits map.

    Args:
        plans: one for each linear of the tree, on the grids of the format (`core.formats.grids.plan_layers`).
        source_folder: with config and tokenizer.
        label: name of the model.
        embedding_type: block type of the source's embedding, which the file keeps unless its format sets another.
        like: path of a GGUF file, whose name, embedding type, tokenizer and general metadata the file gets.

    Raises:
        BadInput: no block type represents a layer.
        UnsupportedModel: an architecture or a tokenizer that is not written.
    """
    written_architecture(tree.config)
    for problem in problems(tree, plans, name):
        raise BadInput(problem, "Make it symmetric, give it fewer bits, or choose another format.")
    quantized = {item.linear.name: item for item in plans if item.scheme.quantized}
    types = {linear: linear_type(item.scheme) for linear, item in quantized.items()}
    embedding = tree.tensors[f"{tree.embedding}.weight"]
    other = read_file_types(Path(like), tree) if like else None
    kept = embedding_type if not mix_of(name) else ""
    if other is not None:
        kept = other.embedding if other.embedding in TYPES else ""
    types.setdefault(tree.embedding, kept or other_type(name, tree, embedding))
    head = tree.tied_head
    separate_head = head is not None and head.name in quantized
    contents = export(tree, source_folder, label, types, mix=mix_of(name), separate_head=separate_head)
    file = file_name(label, name, contents)
    if other is not None:
        contents = replace(contents, entries=entries_like(contents.entries, other.header))
        file = whole_name(other.header.path.name)
    return GgufPlan(
        name=name,
        layers=quantized,
        contents=contents,
        file=file,
        source_folder=source_folder,
        notes=(*contents.notes, *notes(tree, plans, name)),
        embedding_type=embedding_type,
    )


def file_name(label: str, format_name: str, contents: Export) -> str:
    """Return the file name in the convention of llama.cpp: `SmolLM2-135M-Instruct-Q4_K_M.gguf`."""
    stem = re.sub(r"\.(gguf|safetensors)\Z", "", label.rpartition("/")[2])
    stem = re.sub(r"[^\w.-]+", "-", re.sub(r"\s*\(.*?\)", "", stem)).strip("-.")[:80] or "model"
    kind = mix_of(format_name)
    if not kind:
        counts: dict[str, int] = {}
        for slot in contents.slots:
            if slot.name.startswith("blk.") and len(slot.shape) == 2:
                counts[slot.type] = counts.get(slot.type, 0) + slot.nbytes
        kind = max(counts, key=lambda held: counts[held], default="f32")
    return f"{stem}-{kind.upper()}.gguf"


def _same(item: MappedTensor, kind: str, ours: Tensor, theirs: Tensor) -> bool:
    if kind in FLOATS:
        return torch.equal(ours, item.restore(item.store(theirs)) if item.shift else theirs)
    # Rows in a wrong order would differ by 1.4 of their norm.
    bits = TYPES[kind].bits
    allowed = 2.0 ** (1 - bits) if bits > 2 else 0.7
    return bool((ours - theirs).norm() <= allowed * theirs.norm())


def _pieces(item: MappedTensor) -> Iterator[slice]:
    """Yield the rows of a matrix in pieces of at most `_PIECE` weights."""
    rows = item.shape[0]
    step = max(1, _PIECE // item.shape[1]) if item.is_matrix else rows
    return (slice(start, min(rows, start + step)) for start in range(0, rows, step))


def _read(store: TensorStore, item: MappedTensor, rows: slice) -> Tensor:
    if not item.is_matrix:
        return store.get(item.source)
    return store.rows(item.source, torch.arange(rows.start, rows.stop))


def _blocks(store: TensorStore, item: MappedTensor, kind: str, should_stop: ShouldStop) -> Iterator[Tensor]:
    """Yield a matrix in a block type, some rows at a time, reusing the source's blocks if they have that type."""
    for rows in _pieces(item):
        check_stop(should_stop)
        own = store.blocks(item.source, torch.arange(rows.start, rows.stop))
        if own is not None and own[0] == kind:
            yield own[1]
            continue
        yield round_to(_read(store, item, rows).float(), kind, None, item.source).encode()
