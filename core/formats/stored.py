"""Interfaces of quantized layers, checkpoints and output formats, and functions that depend on them only."""

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
        """Name in the checkpoint, without `.weight`."""

    @property
    def scheme(self) -> LayerScheme: ...
    @property
    def ints(self) -> Tensor:
        """Integers, uint8 [out, in]."""

    def dequantize(self) -> Tensor:
        """Return the weight, float32 [out, in], exactly as readers compute it in float32."""

    def take(self, order: Tensor) -> StoredLayer:
        """Return a layer of the rows `order`, int64 [rows]."""

    def parts(self) -> tuple[Tensor, ...]:
        """Return all tensors of the layer in a fixed order; layers are equal if these tensors are."""


class Checkpoint(Protocol):
    """A model on disk in any format, with the names and shapes of the original model.

    Attributes:
        folder: of the model, with its tokenizer and side files.
        config: config.json of the model, or its equivalent from the metadata of a GGUF file.
        schemes: name of each quantized linear layer -> its scheme.
        plain: names of all other tensors.
        store: the other tensors.
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
        """Read one quantized linear layer."""

    def weight_name(self, name: str) -> str:
        """Return the name that `dense_table` has for the weight of a quantized linear layer."""

    def dense_table(self) -> dict[str, TensorInfo]:
        """Return the tensor table of the original model, from which its tree is built."""


class FormatWriter(Protocol):
    """A writer that receives the layers of an output in any order and writes a complete checkpoint."""

    def begin(self, source: Path) -> None:
        """Write configs, tokenizer and the side files of the folder `source`."""

    def write(self, layer: StoredLayer) -> None:
        """Write one layer from `FormatPlan.stored`."""

    def finish(self, store: TensorStore, should_stop: ShouldStop) -> None:
        """Write the other tensors from `store`, that of the source, and rename the files to their final names."""

    def abort(self) -> None:
        """Remove the unfinished files; no effect after `finish` or `leave`."""

    def leave(self) -> None:
        """Close the files without removing or renaming them, after a later step failed."""


class FormatPlan(Protocol):
    """The plan of an output in one format.

    Attributes:
        name: of the format.
        layers: plans of the quantized linear layers by name.
        min_zero: smallest zero point that the format can store; a lower limit for asymmetric rounding.
        nbytes: size of all tensors.
        notes: remarks for the user, one sentence each, such as layers that take more bits than planned.
        copied: names of the source's tensors that are not quantized layers.
        rounded: those of `copied` that are rounded to a block type -> block type.
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
        """Return the layer as the format stores it: unchanged, or with the same weights on the grid of the format.

        Raises:
            ValueError: the layer is not as planned, or the format cannot store it exactly.
        """

    def writer(self, folder: Path) -> FormatWriter:
        """Return a writer to an existing, empty folder."""

    def open(self, folder: Path) -> Checkpoint:
        """Open the finished output."""

    def check_rest(self, written: Checkpoint, source: TensorStore, should_stop: ShouldStop) -> None:
        """Compare every other tensor of the output with the source.

        Raises:
            VerificationFailed: a tensor differs or is not finite.
        """


def layer_labels(plan: FormatPlan) -> dict[str, int]:
    """Return the number of quantized layers by block type (GGUF) or scheme."""
    counts: dict[str, int] = {}
    for item in plan.layers.values():
        label = linear_type(item.scheme).upper() if is_gguf(plan.name) else item.scheme.label()
        counts[label] = counts.get(label, 0) + 1
    return counts


def by_rows(layer: StoredLayer, step: int) -> Iterator[Tensor]:
    """Yield the weight of a layer, float32 [rows, in], in pieces of `step` rows."""
    height = layer.ints.shape[0]
    for start in range(0, height, step):
        yield layer.take(torch.arange(start, min(height, start + step))).dequantize()


def digest(layer: StoredLayer) -> str:
    """Return a hash of the integers, scales and zero points or minimums of a layer."""
    value = hashlib.sha256()
    for part in layer.parts():
        value.update(part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return value.hexdigest()
