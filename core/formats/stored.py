"""What all quantized layers and all formats have in common: interfaces, and what can be said by them alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from core.control import ShouldStop
from core.formats.gguf.types import linear_type
from core.formats.names import is_gguf
from core.model.headers import TensorInfo
from core.model.plans import LayerPlan
from core.model.weights import TensorStore
from core.schemes import LayerScheme


class StoredLayer(Protocol):
    """A quantized layer in memory: `QuantizedLinear` (integers with float16 scales) or `BlockLinear` (a GGUF type)."""

    @property
    def name(self) -> str:
        """The checkpoint's own, without `.weight`."""

    @property
    def scheme(self) -> LayerScheme: ...
    @property
    def ints(self) -> Tensor:
        """uint8 [out, in]."""

    def dequantize(self) -> Tensor:
        """The weight, float32 [out, in], exactly what readers compute in float32."""

    def parts(self) -> tuple[Tensor, ...]:
        """All tensors that make up the layer, in a fixed order: equal parts, equal layer."""


class Checkpoint(Protocol):
    """A quantized model on disk, of whatever format, under the names and shapes of its original.

    Attributes:
        folder: where it lies; with its tokenizer and side files.
        config: the model's config.json as the original had it or as the file's metadata make it.
        schemes: name of each quantized linear -> its scheme.
        plain: names of all other tensors.
        store: those other tensors, as the original's names and shapes have them.
    """

    @property
    def folder(self) -> Path: ...
    @property
    def config(self) -> dict[str, Any]: ...
    @property
    def schemes(self) -> Mapping[str, LayerScheme]: ...
    @property
    def plain(self) -> list[str]: ...
    @property
    def store(self) -> TensorStore: ...
    def layer(self, name: str) -> StoredLayer:
        """One quantized linear, read from disk."""

    def dense_table(self) -> dict[str, TensorInfo]:
        """The tensor table as if nothing were quantized, for building the tree of the original."""


class FormatWriter(Protocol):
    """Takes the layers of one output in any order and ends with a whole checkpoint in its folder."""

    def begin(self, source: Path) -> None:
        """Write what is known before any layer: configs, tokenizer, and the side files of the folder `source`."""

    def write(self, layer: StoredLayer) -> None:
        """Put one layer, as `FormatPlan.stored` made it, into its place."""

    def finish(self, store: TensorStore, should_stop: ShouldStop) -> None:
        """Write the other tensors out of the source's `store`, and give the files their names."""

    def abort(self) -> None:
        """Remove the tensors that were written; does nothing after `finish` or `leave`."""

    def leave(self) -> None:
        """Close the files and let them lie as they are, where a later step failed."""


class FormatPlan(Protocol):
    """What one output in one format consists of, before anything is written.

    Attributes:
        name: of the format.
        layers: the quantized linears by name.
        min_zero: the smallest zero point that the format stores; asymmetric rounding must keep to it.
        nbytes: of all tensors.
        notes: what a user should know beforehand, one sentence each, such as what exact carrying costs.
        copied: names of the source's tensors that are not quantized layers of the map.
        rounded: those of `copied` that the output has in a block type, rounded -> that type.
    """

    @property
    def name(self) -> str: ...
    @property
    def layers(self) -> Mapping[str, LayerPlan]: ...
    @property
    def min_zero(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def notes(self) -> tuple[str, ...]: ...
    @property
    def copied(self) -> list[str]: ...
    @property
    def rounded(self) -> Mapping[str, str]: ...
    def stored(self, layer: StoredLayer) -> StoredLayer:
        """The layer as this format holds it: itself, or the same numbers on the format's own grid.

        Raises:
            ValueError: it is not what was planned, or the format cannot hold it exactly.
        """

    def writer(self, folder: Path) -> FormatWriter:
        """Begin an output in an existing, empty folder."""

    def open(self, folder: Path) -> Checkpoint:
        """The finished output, read back."""

    def check_rest(self, written: Checkpoint, source: TensorStore, should_stop: ShouldStop) -> None:
        """Hold every other tensor of the output against the source's.

        Raises:
            VerificationFailed: the first that differs or is not finite, by name.
        """


def layer_labels(plan: FormatPlan) -> dict[str, int]:
    """How many linears are stored how in a format, by the name of the block type or of the scheme."""
    counts: dict[str, int] = {}
    for item in plan.layers.values():
        label = linear_type(item.scheme).upper() if is_gguf(plan.name) else item.scheme.label()
        counts[label] = counts.get(label, 0) + 1
    return counts


def by_rows(layer: StoredLayer, step: int) -> Iterator[Tensor]:
    """The weight of a layer, float32 [rows, in], so many rows at a time."""
    take, height = getattr(layer, "take", None), layer.ints.shape[0]
    if take is None:
        yield from layer.dequantize().split(step)
        return
    for start in range(0, height, step):
        yield take(torch.arange(start, min(height, start + step))).dequantize()


def digest(layer: StoredLayer) -> str:
    """A hash of what a layer means: integers, scales and zero points or minimums."""
    value = hashlib.sha256()
    for part in layer.parts():
        value.update(part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return value.hexdigest()
