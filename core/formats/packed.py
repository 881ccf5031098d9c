"""Outputs with packed layers in safetensors: plan, writer and verification.

AutoRound, GPTQ and AWQ checkpoints differ only in their packing and their config, which are attributes of the plan.
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
from core.formats.experts import ExpertTensor, expert_tensors
from core.formats.layout import TensorPlan, encode, planned
from core.formats.packing import Packing
from core.formats.quantized import QuantizedLinear
from core.formats.reader import QuantizedCheckpoint
from core.formats.side_files import carry_over
from core.formats.stored import Checkpoint, StoredLayer
from core.model.plans import LayerPlan
from core.model.tree import ModelTree
from core.model.weights import TensorStore, evenly, read_bias, read_linear
from core.model.writer import MAX_SHARD_BYTES, CheckpointWriter, failures


@dataclass(frozen=True)
class PackedPlan:
    """The plan of an output with packed layers; implements `stored.FormatPlan`.

    Attributes:
        name: of the format.
        packing: layout of the quantized layers.
        tensors: all tensors of the output in the order of the checkpoint, with the packed tensors of a layer in place
            of its weight.
        copied: names of the tensors that are copied unchanged.
        experts: weights of experts that stay in 16 bits, and biases of experts, by name.
        tree: of the source.
        layers: the quantized linear layers by name.
        min_zero: smallest zero point that the format can store; a lower limit for asymmetric rounding.
        config_file: additional file with the quantization config for some programs; "" for none.
        settings: the `quantization_config`.
        source_config: config.json of the source.
        module_name: function from a layer name in the checkpoint to the module name in the transformers model.
        unties: whether the head is tied to the embedding in the source and a separate quantized layer in the output.
        act_order: whether layers may have act-order (GPTQ's `desc_act`).
        notes: remarks for the user.
    """

    name: str
    packing: Packing
    tensors: list[TensorPlan]
    copied: list[str]
    experts: Mapping[str, ExpertTensor]
    tree: ModelTree
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
        """Size of all tensors in bytes."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @property
    def rounded(self) -> Mapping[str, str]:
        """Always empty: tensors other than quantized layers are copied unchanged."""
        return {}

    def stored(self, layer: StoredLayer) -> QuantizedLinear:
        """Return the layer, after checking that it is as planned and that the format can store it.

        Raises:
            ValueError: the scheme or shape is not as planned, a zero point is below the minimum, or the layer has
                act-order that was not planned.
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
        """Return the planned tensors of one quantized linear layer, by name.

        Raises:
            ValueError: as `stored`, or values are invalid for the scheme.
        """
        return encode(self.packing, self.stored(layer))

    def config(self) -> dict[str, Any]:
        """Return a copy of the `quantization_config`."""
        return copy.deepcopy(dict(self.settings))

    def model_config(self) -> dict[str, Any]:
        """Return config.json of the output."""
        config = copy.deepcopy(dict(self.source_config))
        if self.unties:
            # Readers differ in whether they use the nested value or the outer one.
            for part in (config, config.get("text_config")):
                if isinstance(part, dict):
                    part["tie_word_embeddings"] = False
        return {**config, "quantization_config": self.config()}

    def writer(self, folder: Path, max_shard_bytes: int = MAX_SHARD_BYTES) -> PackedWriter:
        """Return a writer to an existing, empty folder.

        Raises:
            DiskFull, OutputProblem: the folder cannot be written.
        """
        return PackedWriter(self, folder, max_shard_bytes)

    def open(self, folder: Path) -> QuantizedCheckpoint:
        """Open the finished output.

        Raises:
            BitwrightError: the output is invalid.
        """
        return QuantizedCheckpoint(folder, self.module_name)

    def check_rest(self, written: Checkpoint, source: TensorStore, should_stop: ShouldStop) -> None:
        """Compare every tensor that is not packed with the source, and check that its values are finite.

        Raises:
            VerificationFailed: a tensor differs from the source or is not finite.
            Cancelled: `should_stop` returned true.
        """
        for name in self.copied:
            check_stop(should_stop)
            dtype = source.dtype(name)
            pieces = zip(evenly(written.store.chunks(name)), evenly(source.chunks(name)), strict=True)
            for ours, theirs in pieces:
                if ours != theirs:
                    raise _differs(name)
                # A single value may be an infinite limit of activations (Gemma 4's towers).
                if dtype.is_floating_point and dtype.itemsize > 1 and source.info(name).numel > 1:
                    _check_finite(name, torch.frombuffer(bytearray(ours), dtype=dtype))
        for name in self.experts:
            check_stop(should_stop)
            found = written.store.get(name)
            if not torch.equal(found.view(torch.uint8), self.expert(name, source).view(torch.uint8)):
                raise _differs(name)
            _check_finite(name, found)

    def expert(self, name: str, source: TensorStore) -> Tensor:
        """Return one of the tensors in `experts`."""
        wanted = self.experts[name]
        value = (read_bias if wanted.bias else read_linear)(source, self.tree, wanted.linear)
        assert value is not None
        return value


def _differs(name: str) -> VerificationFailed:
    return VerificationFailed(f"{name} differs from the source model.", "Please report this.")


def _check_finite(name: str, values: Tensor) -> None:
    if not bool(torch.isfinite(values).all()):
        raise VerificationFailed(f"{name} contains values that are not finite.", "Download the model again.")


class PackedWriter:
    """The writer of a `PackedPlan`; implements `stored.FormatWriter`."""

    def __init__(self, plan: PackedPlan, folder: Path, max_shard_bytes: int = MAX_SHARD_BYTES) -> None:
        self._plan = plan
        self._folder = folder
        self._tensors = CheckpointWriter(folder, plan.tensors, max_shard_bytes)

    def write(self, layer: StoredLayer) -> None:
        """Pack and write one layer.

        Raises:
            ValueError: the layer is not as planned, or already written.
            DiskFull, OutputProblem: the file cannot be written.
        """
        for name, tensor in self._plan.encode(layer).items():
            self._tensors.write(name, tensor)

    def begin(self, source: Path) -> None:
        """Write the configs and the side files of the folder `source`.

        Raises:
            DiskFull, OutputProblem: the folder cannot be written.
        """
        with failures(self._folder):
            write_json(self._folder / "config.json", self._plan.model_config())
            if self._plan.config_file:
                write_json(self._folder / self._plan.config_file, self._plan.config())
        carry_over(source, self._folder)

    def finish(self, store: TensorStore, should_stop: ShouldStop) -> None:
        """Copy all other tensors from `store`, the tensors of the source, and close the files.

        Raises:
            ValueError: layers are missing.
            DiskFull, OutputProblem: the folder cannot be written.
            Cancelled: `should_stop` returned true.
        """
        for name in self._plan.copied:
            check_stop(should_stop)
            self._tensors.write_pieces(name, store.chunks(name))
        for name in self._plan.experts:
            check_stop(should_stop)
            self._tensors.write(name, self._plan.expert(name, store))
        self._tensors.close()

    def abort(self) -> None:
        """Remove the unfinished files; no effect after `finish` or `leave`."""
        self._tensors.abort()

    def leave(self) -> None:
        """Close the files without removing or renaming them."""
        self._tensors.leave()


def packed_tensors(
    tree: ModelTree, quantized: Mapping[str, LayerPlan], packing: Packing, *, separate: bool = False
) -> tuple[list[TensorPlan], list[str], dict[str, ExpertTensor]]:
    """Return all tensors of an output, the names of those that are copied, and `PackedPlan.experts`.

    Args:
        tree: of the source.
        quantized: the quantized linear layers by name; a tied head, which has no weight in the source, is last.
        packing: of the quantized layers.
        separate: `always` of `expert_tensors`.
    """
    tensors: list[TensorPlan] = []
    copied: list[str] = []
    experts: dict[str, ExpertTensor] = {}
    replaced = expert_tensors(tree, quantized, always=separate)
    for info in tree.tensors.values():
        if info.name in replaced:
            for part in replaced[info.name]:
                if isinstance(part, ExpertTensor):
                    tensors.append(part.plan)
                    experts[part.plan.name] = part
                else:
                    tensors += _planned(packing, quantized[part.name])
            continue
        item = quantized.get(info.name.removesuffix(".weight")) if info.name.endswith(".weight") else None
        if item is None:
            tensors.append(TensorPlan(info.name, info.dtype, info.shape))
            copied.append(info.name)
        else:
            tensors += _planned(packing, item)
    head = tree.tied_head
    if head is not None and head.name in quantized:
        tensors += _planned(packing, quantized[head.name])
    return tensors, copied, experts


def _planned(packing: Packing, item: LayerPlan) -> list[TensorPlan]:
    linear = item.linear
    return planned(packing, linear.name, item.scheme, linear.in_features, linear.out_features)
