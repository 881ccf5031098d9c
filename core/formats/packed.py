"""Outputs whose layers lie packed in safetensors: what one consists of, writing it, and reading it back.

AutoRound's, GPTQ's and AWQ's checkpoints differ in a packing and in what their config says; both are given here, and
all else is the same. Knows no bit of a packing and no key of a config.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.control import ShouldStop, check_stop
from core.errors import VerificationFailed
from core.files import write_json
from core.formats.config_names import ModuleName
from core.formats.layout import TensorPlan, encode, planned
from core.formats.packing import Packing
from core.formats.quantized import QuantizedLinear
from core.formats.reader import QuantizedCheckpoint
from core.formats.side_files import carry_over
from core.formats.stored import Checkpoint, StoredLayer
from core.model.plans import LayerPlan
from core.model.tree import ModelTree
from core.model.weights import TensorStore, evenly
from core.model.writer import MAX_SHARD_BYTES, CheckpointWriter, failures


@dataclass(frozen=True)
class PackedPlan:
    """One output in one format: a `stored.FormatPlan`.

    Attributes:
        name: of the format.
        packing: how quantized layers lie in the file.
        tensors: every tensor of the output: those of a quantized layer in place of its weight, all others as the
            checkpoint has them, in its order.
        copied: names of the tensors that go over byte for byte.
        layers: the quantized linears by name.
        min_zero: the smallest zero point that the format stores; asymmetric rounding must keep to it.
        config_file: beside config.json, the file that some programs look for the same settings in; "" for none.
        settings: the `quantization_config`.
        source_config: the source's config.json.
        module_name: from a linear's name in the checkpoint to that of its module in the transformers model.
        unties: the head was the embedding in the source and is a quantized layer of its own here.
        act_order: layers may have act-order (GPTQ's `desc_act`).
        notes: what a user should know beforehand.
    """

    name: str
    packing: Packing
    tensors: list[TensorPlan]
    copied: list[str]
    layers: Mapping[str, LayerPlan]
    min_zero: int
    config_file: str
    settings: Mapping[str, Any]
    source_config: Mapping[str, Any]
    module_name: ModuleName = str
    unties: bool = False
    act_order: bool = False
    notes: tuple[str, ...] = ()

    @cached_property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @property
    def rounded(self) -> Mapping[str, str]:
        """None: what is not a quantized layer goes over byte for byte."""
        return {}

    def stored(self, layer: StoredLayer) -> QuantizedLinear:
        """The layer itself, if it is what was planned and within what the format holds.

        Raises:
            ValueError: another scheme or shape, a zero point below `min_zero`, or act-order that was not planned.
        """
        expected = self.layers[layer.name]
        shape = (expected.linear.out_features, expected.linear.in_features)
        if not isinstance(layer, QuantizedLinear) or layer.scheme != expected.scheme or layer.ints.shape != shape:
            raise ValueError(f"{layer.name} was planned as {expected.scheme.label()} {shape}")
        if layer.g_idx is not None and not self.act_order:
            raise ValueError(f"{layer.name} has act-order (desc_act), which was not planned")
        if not layer.scheme.sym and int(layer.zeros.min()) < self.packing.zero_bias:
            raise ValueError(f"{layer.name} has a zero point of 0, which {self.name} cannot store")
        return layer

    def encode(self, layer: StoredLayer) -> dict[str, Tensor]:
        """The planned tensors of one quantized linear, by name.

        Raises:
            ValueError: as `stored`, or values that do not belong to the scheme.
        """
        return encode(self.packing, self.stored(layer))

    def config(self) -> dict[str, Any]:
        """The `quantization_config`, fresh at each call."""
        return copy.deepcopy(dict(self.settings))

    def model_config(self) -> dict[str, Any]:
        """The whole config.json, from the source's own."""
        config = copy.deepcopy(dict(self.source_config))
        if self.unties:
            # Nested configs say it for the language model; readers look at either.
            for part in (config, config.get("text_config")):
                if isinstance(part, dict):
                    part["tie_word_embeddings"] = False
        return {**config, "quantization_config": self.config()}

    def writer(self, folder: Path, max_shard_bytes: int = MAX_SHARD_BYTES) -> PackedWriter:
        """Begin the output in an existing, empty folder.

        Raises:
            DiskFull, OutputProblem: the folder cannot take it.
        """
        return PackedWriter(self, folder, max_shard_bytes)

    def open(self, folder: Path) -> QuantizedCheckpoint:
        """The finished output, read back.

        Raises:
            BitwrightError: it is not sound.
        """
        return QuantizedCheckpoint(folder, self.module_name)

    def check_rest(self, written: Checkpoint, source: TensorStore, should_stop: ShouldStop) -> None:
        """Hold every copied tensor against the source's bytes, and look for NaN and inf.

        Raises:
            VerificationFailed: the first that differs or is not finite, by name.
            Cancelled: `should_stop` said so.
        """
        for name in self.copied:
            check_stop(should_stop)
            dtype = source.dtype(name)
            pieces = zip(evenly(written.store.chunks(name)), evenly(source.chunks(name)), strict=True)
            for ours, theirs in pieces:
                if ours != theirs:
                    raise VerificationFailed(f"{name} differs from the source model.", "Please report this.")
                if dtype.is_floating_point and dtype.itemsize > 1:
                    values = torch.frombuffer(bytearray(ours), dtype=dtype)
                    if not torch.isfinite(values).all():
                        raise VerificationFailed(f"{name} holds values that are not finite.", "Fetch the model again.")


class PackedWriter:
    """Writes one output: layers in any order, then everything else. A `stored.FormatWriter`."""

    def __init__(self, plan: PackedPlan, folder: Path, max_shard_bytes: int = MAX_SHARD_BYTES) -> None:
        self._plan = plan
        self._folder = folder
        self._tensors = CheckpointWriter(folder, plan.tensors, max_shard_bytes)

    def write(self, layer: StoredLayer) -> None:
        """Put one layer, packed, into its place.

        Raises:
            ValueError: the plan cannot hold it, or it was written before.
            DiskFull, OutputProblem: the file cannot take it.
        """
        for name, tensor in self._plan.encode(layer).items():
            self._tensors.write(name, tensor)

    def begin(self, source: Path) -> None:
        """Configs, and the side files of `source`.

        Raises:
            DiskFull, OutputProblem: the folder cannot take it.
        """
        with failures(self._folder):
            write_json(self._folder / "config.json", self._plan.model_config())
            if self._plan.config_file:
                write_json(self._folder / self._plan.config_file, self._plan.config())
        carry_over(source, self._folder)

    def finish(self, store: TensorStore, should_stop: ShouldStop) -> None:
        """All other tensors out of the source's `store`, byte for byte.

        Raises:
            ValueError: layers are missing.
            DiskFull, OutputProblem: the folder cannot take it.
            Cancelled: `should_stop` said so.
        """
        for name in self._plan.copied:
            check_stop(should_stop)
            self._tensors.write_pieces(name, store.chunks(name))
        self._tensors.close()

    def abort(self) -> None:
        """Remove the tensors that were written; does nothing after `finish` or `leave`."""
        self._tensors.abort()

    def leave(self) -> None:
        """Close the files and let them lie as they are."""
        self._tensors.leave()


def lay_out_tensors(
    tree: ModelTree, quantized: Mapping[str, LayerPlan], packing: Packing
) -> tuple[list[TensorPlan], list[str]]:
    """Every tensor of an output, and the names of those that are the source's own.

    Args:
        quantized: the quantized linears by name; those without a weight of their own (a tied head) come last.
    """
    tensors: list[TensorPlan] = []
    copied: list[str] = []
    for info in tree.tensors.values():
        item = quantized.get(info.name.removesuffix(".weight")) if info.name.endswith(".weight") else None
        if item is None:
            tensors.append(TensorPlan(info.name, info.dtype, info.shape))
            copied.append(info.name)
        else:
            tensors += _planned(packing, item)
    new = [item for item in quantized.values() if f"{item.linear.name}.weight" not in tree.tensors]
    return tensors + [tensor for item in new for tensor in _planned(packing, item)], copied


def _planned(packing: Packing, item: LayerPlan) -> list[TensorPlan]:
    linear = item.linear
    return planned(packing, linear.name, item.scheme, linear.in_features, linear.out_features)
