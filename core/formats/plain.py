"""Unquantized models in safetensors: plan, writer and reader of the formats bf16, f16 and f32.

All floating-point tensors are converted to the dtype of the format; integer tensors are copied unchanged.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from core.control import ShouldStop, check_stop
from core.errors import BadInput, VerificationFailed
from core.files import write_json
from core.formats.dequantized.source import read_source
from core.formats.dequantized.store import open_store
from core.formats.names import PLAIN
from core.formats.side_files import carry_over
from core.formats.stored import StoredLayer, by_rows
from core.model.headers import TensorInfo
from core.model.tree import LayerPlan, ModelTree
from core.model.weights import TensorStore, evenly
from core.model.writer import TORCH_DTYPES, CheckpointWriter, TensorPlan
from core.schemes import UNTOUCHED, LayerScheme

CODES: Final = {"bf16": "BF16", "f16": "F16", "f32": "F32"}
"""Format name -> safetensors dtype code."""

_STOPPED: Final = "The conversion was stopped."

DIGITS: Final = {"BF16": 8, "F16": 11, "F32": 24, "F64": 53}
"""Significant bits of a value by dtype code."""

_CAST: Final = ("BF16", "F16", "F32")
_DTYPES: Final = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}
_CONV1D: Final = ("gpt2", "openai-gpt")
"""Model types whose blocks use transformers' Conv1D, which stores weights as [in, out]."""


_PIECE: Final = 1 << 21
"""Number of weights that are in float32 at a time."""

_SCHEME: Final = LayerScheme(bits=UNTOUCHED)


@dataclass(frozen=True, eq=False)
class PlainLinear:
    """An unquantized linear layer.

    Attributes:
        name: as in the checkpoint, without `.weight`.
        weight: [out, in], in the dtype of the file.
        scheme: 16 bits, which means "not quantized".
    """

    name: str
    weight: Tensor
    scheme: LayerScheme = _SCHEME

    @property
    def ints(self) -> Tensor:
        """The bytes of the weight, uint8 [out, in * itemsize]."""
        return self.weight.contiguous().view(torch.uint8)

    def dequantize(self) -> Tensor:
        """Return the weight, float32 [out, in]."""
        return self.weight.to(torch.float32)

    def parts(self) -> tuple[Tensor, ...]:
        """Return the weight."""
        return (self.weight,)

    def take(self, order: Tensor) -> PlainLinear:
        """Return a layer of the rows `order`, int64 [rows]."""
        return PlainLinear(self.name, self.weight[order], self.scheme)


class PlainCheckpoint:
    """A checkpoint on disk whose weights are read as floats; implements `stored.Checkpoint`.

    Attributes:
        source: its tensors; they may be stored in fewer bits and unpacked when they are read.

    Args:
        folder: of the model.
        layers: linear layers to be available by `layer`.
        transposed: those of them that are stored as [in, out].
    """

    def __init__(self, folder: Path, layers: Collection[str] = (), transposed: Collection[str] = ()) -> None:
        self.folder = folder
        self.source = read_source(folder)
        self.config = self.source.config
        self.store = open_store(folder, self.source)
        self.schemes: Mapping[str, LayerScheme] = dict.fromkeys(layers, _SCHEME)
        weights = {f"{name}.weight" for name in layers}
        self.plain = [name for name in self.store.table if name not in weights]
        self._transposed = frozenset(transposed)

    def layer(self, name: str) -> PlainLinear:
        """Read one of the linear layers."""
        if name not in self.schemes:
            raise KeyError(name)
        weight = self.store.get(f"{name}.weight")
        return PlainLinear(name, weight.T.contiguous() if name in self._transposed else weight)

    def weight_name(self, name: str) -> str:
        """Return the name of the weight of one of the linear layers."""
        return f"{name}.weight"

    def dense_table(self) -> dict[str, TensorInfo]:
        """Return the tensor table."""
        return dict(self.store.table)


@dataclass(frozen=True)
class PlainPlan:
    """The plan of an unquantized output; implements `stored.FormatPlan`.

    Attributes:
        name: bf16, f16 or f32.
        layers: the linear layers that are quantized in the source.
        tensors: all tensors of the output.
        copied: names of the tensors that are not weights of `layers`.
        transposed: linear layers whose weight is stored as [in, out].
        config: config.json of the output.
        min_zero: always 0.
        notes: always empty.
    """

    name: str
    layers: Mapping[str, LayerPlan]
    tensors: list[TensorPlan]
    copied: list[str]
    transposed: frozenset[str]
    config: Mapping[str, Any]
    min_zero: int = 0
    notes: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        """Size of all tensors in bytes."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the floating-point tensors."""
        return TORCH_DTYPES[CODES[self.name]]

    @property
    def rounded(self) -> Mapping[str, str]:
        """Always empty: there are no block types."""
        return {}

    def stored(self, layer: StoredLayer) -> PlainLinear:
        """Return the dequantized layer, rounded to the dtype of the format.

        Raises:
            ValueError: the layer is not as planned, or has values outside the range of the dtype.
        """
        linear = self.layers[layer.name].linear
        weight = torch.empty(linear.out_features, linear.in_features, dtype=self.dtype)
        done = 0
        for rows in by_rows(layer, max(1, _PIECE // linear.in_features)):
            if rows.shape[1] != linear.in_features or done + len(rows) > linear.out_features:
                break
            weight[done : done + len(rows)] = _cast(rows, self.dtype, layer.name)
            done += len(rows)
        else:
            if done == linear.out_features:
                return PlainLinear(layer.name, weight)
        raise ValueError(f"{layer.name} was planned as {linear.out_features}x{linear.in_features}")

    def writer(self, folder: Path) -> PlainWriter:
        """Return a writer to an existing, empty folder."""
        return PlainWriter(self, folder)

    def open(self, folder: Path) -> PlainCheckpoint:
        """Open the finished output."""
        return PlainCheckpoint(folder, self.layers, self.transposed)

    def rest(self, store: TensorStore, name: str) -> Iterator[tuple[bytes, bytes]]:
        """Yield a tensor that is not a quantized layer in pieces: bytes of the source, and bytes of the output.

        Raises:
            ValueError: the tensor has values outside the range of the dtype.
        """
        code = store.info(name).dtype
        if code not in _CAST or code == CODES[self.name]:
            yield from ((piece, piece) for piece in store.chunks(name))
            return
        for piece in evenly(store.chunks(name)):
            values = torch.frombuffer(bytearray(piece), dtype=TORCH_DTYPES[code])
            yield piece, _bytes(_cast(values, self.dtype, name))

    def check_rest(self, written: Any, source: TensorStore, should_stop: ShouldStop) -> None:
        """Compare every other tensor of the output with the rounded tensor of the source.

        Raises:
            VerificationFailed: a tensor differs or is not finite.
        """
        for name in self.copied:
            check_stop(should_stop, _STOPPED)
            expected = evenly(piece for _, piece in self.rest(source, name))
            for ours, theirs in zip(evenly(written.store.chunks(name)), expected, strict=True):
                if ours != theirs:
                    raise VerificationFailed(f"{name} differs from the source model.", "Please report this.")
                dtype = written.store.dtype(name)
                # A single value may be an infinite limit of activations (Gemma 4's towers).
                checked = dtype.is_floating_point and dtype.itemsize > 1 and written.store.info(name).numel > 1
                if checked and not _finite(ours, dtype):
                    raise VerificationFailed(
                        f"{name} contains values that are not finite.", "Download the model again."
                    )


class PlainWriter:
    """The writer of a `PlainPlan`; implements `stored.FormatWriter`."""

    def __init__(self, plan: PlainPlan, folder: Path) -> None:
        self._plan = plan
        self._folder = folder
        self._writer = CheckpointWriter(folder, plan.tensors)

    def write(self, layer: StoredLayer) -> None:
        """Write one layer from `PlainPlan.stored`."""
        (weight,) = layer.parts()
        self._writer.write(f"{layer.name}.weight", weight.T if layer.name in self._plan.transposed else weight)

    def begin(self, source: Path) -> None:
        """Write the config and the side files of the folder `source`."""
        write_json(self._folder / "config.json", self._plan.config)
        carry_over(source, self._folder)

    def finish(self, store: TensorStore, should_stop: ShouldStop) -> None:
        """Write all other tensors, rounded, and close the files.

        Raises:
            ValueError: a tensor has values outside the range of the dtype.
        """
        for name in self._plan.copied:
            self._writer.write_pieces(name, _stoppable((new for _, new in self._plan.rest(store, name)), should_stop))
        self._writer.close()

    def abort(self) -> None:
        """Remove the unfinished files; no effect after `finish` or `leave`."""
        self._writer.abort()

    def leave(self) -> None:
        """Close the files without removing or renaming them."""
        self._writer.leave()


def plan_plain(name: str, tree: ModelTree, plans: Sequence[LayerPlan], source_config: Mapping[str, Any]) -> PlainPlan:
    """Plan an unquantized output.

    Args:
        name: one of `names.PLAIN`.
        tree: of the source, with a weight [out, in] for every quantized linear layer.
        plans: of all linear layers of the tree; those with a quantized scheme are written by `PlainWriter.write`.
        source_config: config.json of the source.

    Raises:
        BadInput: the format is unknown, or a quantized head shares the weight of the embedding.
    """
    if name not in PLAIN:
        raise BadInput(f"Unknown output format {name!r}.", f"Choose from {', '.join(PLAIN)}.")
    layers = {item.linear.name: item for item in plans if item.scheme.quantized}
    weights = {f"{layer}.weight" for layer in layers}
    conv1d = tree.model_type in _CONV1D
    transposed = frozenset(
        layer for layer, item in layers.items() if item.linear.transposed or (conv1d and item.linear.block >= 0)
    )
    tensors = [_planned(name, info, layers, transposed) for info in tree.tensors.values()]
    missing = weights - set(tree.tensors)
    if missing:
        raise BadInput(f"{min(missing)} is not a tensor of the source.", "Please report this.")
    return PlainPlan(
        name=name,
        layers=layers,
        tensors=tensors,
        copied=[tensor.name for tensor in tensors if tensor.name not in weights],
        transposed=transposed,
        config=_config(name, source_config),
    )


def _planned(name: str, info: TensorInfo, layers: Mapping[str, LayerPlan], transposed: Collection[str]) -> TensorPlan:
    layer = info.name.removesuffix(".weight")
    shape = info.shape
    if layer in transposed and info.name != layer:
        shape = (layers[layer].linear.in_features, layers[layer].linear.out_features)
    return TensorPlan(info.name, CODES[name] if info.dtype in _CAST else info.dtype, shape)


def _config(name: str, source: Mapping[str, Any]) -> dict[str, Any]:
    """Return the source's config without `quantization_config`, and with the new dtype under the existing keys."""
    config = copy.deepcopy(dict(source))
    config.pop("quantization_config", None)
    # older configs use torch_dtype, newer ones dtype, and nested configs have entries of their own
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]
    entries = [(part, key) for part in parts for key in ("dtype", "torch_dtype") if key in part]
    for part, key in entries or [(config, "dtype")]:
        part[key] = _DTYPES[name]
    return config


def _cast(values: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    found = values.to(dtype)
    if found.numel() > 1 and not bool(torch.isfinite(found).all()):
        if bool(torch.isfinite(values).all()):
            raise ValueError(f"{name} has values up to {float(values.abs().max()):.3g}, outside the range of {dtype}")
        raise ValueError(f"{name} contains values that are not finite")
    return found


def _finite(data: bytes, dtype: torch.dtype) -> bool:
    return bool(torch.isfinite(torch.frombuffer(bytearray(data), dtype=dtype)).all())


def _bytes(values: Tensor) -> bytes:
    return values.contiguous().view(torch.uint8).numpy().tobytes()


def _stoppable(pieces: Iterator[bytes], should_stop: ShouldStop) -> Iterator[bytes]:
    for piece in pieces:
        check_stop(should_stop, _STOPPED)
        yield piece
