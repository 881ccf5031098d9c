"""Models as floating-point numbers, in safetensors: the way out of every quantized format, and between precisions.

Every floating-point tensor gets the one type that was asked for; tensors of integers stay as they are. Knows dtypes
and names, not where quantized layers come from.
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
from core.formats.names import PLAIN
from core.formats.settings import read_object
from core.formats.side_files import carry_over
from core.formats.stored import StoredLayer, by_rows
from core.model.headers import TensorInfo
from core.model.tree import LayerPlan, ModelTree, read_tensors
from core.model.weights import TensorStore, evenly
from core.model.writer import TORCH_DTYPES, CheckpointWriter, TensorPlan
from core.schemes import UNTOUCHED, LayerScheme

CODES: Final = {"bf16": "BF16", "f16": "F16", "f32": "F32"}
"""Format name -> safetensors dtype code."""

_STOPPED: Final = "The conversion was stopped."

DIGITS: Final = {"BF16": 8, "F16": 11, "F32": 24, "F64": 53}
"""Significant bits of a number."""

_CAST: Final = ("BF16", "F16", "F32")
_DTYPES: Final = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}
_CONV1D: Final = ("gpt2", "openai-gpt")
"""Model types whose blocks are made of transformers' Conv1D, which stores a weight [in, out]."""


_PIECE: Final = 1 << 21
"""Weights that are in float32 at once."""

_SCHEME: Final = LayerScheme(bits=UNTOUCHED)


@dataclass(frozen=True, eq=False)
class PlainLinear:
    """A layer as floating-point numbers.

    Attributes:
        name: the checkpoint's own, without `.weight`.
        weight: [out, in], in the type of the file.
        scheme: 16 bits, which stands for "not quantized".
    """

    name: str
    weight: Tensor
    scheme: LayerScheme = _SCHEME

    @property
    def ints(self) -> Tensor:
        """The bytes of the weight, uint8 [out, in times bytes of a number]."""
        return self.weight.contiguous().view(torch.uint8)

    def dequantize(self) -> Tensor:
        """The weight, float32 [out, in]."""
        return self.weight.to(torch.float32)

    def parts(self) -> tuple[Tensor, ...]:
        """The weight."""
        return (self.weight,)

    def take(self, order: Tensor) -> PlainLinear:
        """The layer of these rows, int64 [rows], in this order."""
        return PlainLinear(self.name, self.weight[order], self.scheme)


class PlainCheckpoint:
    """A checkpoint of floating-point numbers on disk; see `stored.Checkpoint`.

    Args:
        folder: of the model.
        layers: linears to give by `layer`; none makes it a model that was never quantized.
        transposed: those of them that lie in the file as [in, out].
    """

    def __init__(self, folder: Path, layers: Collection[str] = (), transposed: Collection[str] = ()) -> None:
        self.folder = folder
        self.config = read_object(folder / "config.json")
        self.store = TensorStore(folder, read_tensors(folder, self.config))
        self.schemes: Mapping[str, LayerScheme] = dict.fromkeys(layers, _SCHEME)
        weights = {f"{name}.weight" for name in layers}
        self.plain = [name for name in self.store.table if name not in weights]
        self._transposed = frozenset(transposed)

    def layer(self, name: str) -> PlainLinear:
        """One of the linears, read from disk."""
        if name not in self.schemes:
            raise KeyError(name)
        weight = self.store.get(f"{name}.weight")
        return PlainLinear(name, weight.T.contiguous() if name in self._transposed else weight)

    def dense_table(self) -> dict[str, TensorInfo]:
        """The tensor table."""
        return dict(self.store.table)


@dataclass(frozen=True)
class PlainPlan:
    """An output of floating-point numbers; see `stored.FormatPlan`.

    Attributes:
        name: bf16, f16 or f32.
        layers: the linears that are quantized in the source.
        tensors: every tensor of the output.
        copied: names of the tensors that are not such linears' weights.
        transposed: linears whose weight the model expects as [in, out].
        config: the config.json of the output.
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
        return sum(tensor.nbytes for tensor in self.tensors)

    @property
    def dtype(self) -> torch.dtype:
        return TORCH_DTYPES[CODES[self.name]]

    @property
    def rounded(self) -> Mapping[str, str]:
        """None: there are no block types here."""
        return {}

    def stored(self, layer: StoredLayer) -> PlainLinear:
        """The layer's weight, rounded to the nearest number of the type.

        Raises:
            ValueError: it is not what was planned, or has numbers beyond the type's range.
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
        """Begin an output in an existing, empty folder."""
        return PlainWriter(self, folder)

    def open(self, folder: Path) -> PlainCheckpoint:
        """The finished output, read back."""
        return PlainCheckpoint(folder, self.layers, self.transposed)

    def rest(self, store: TensorStore, name: str) -> Iterator[tuple[bytes, bytes]]:
        """A tensor that is no quantized layer, in pieces: as the source has it, and as the output does.

        Raises:
            ValueError: it has numbers beyond the type's range.
        """
        code = store.info(name).dtype
        if code not in _CAST or code == CODES[self.name]:
            yield from ((piece, piece) for piece in store.chunks(name))
            return
        for piece in evenly(store.chunks(name)):
            values = torch.frombuffer(bytearray(piece), dtype=TORCH_DTYPES[code])
            yield piece, _bytes(_cast(values, self.dtype, name))

    def check_rest(self, written: Any, source: TensorStore, should_stop: ShouldStop) -> None:
        """Hold every other tensor of the output against the source's, rounded.

        Raises:
            VerificationFailed: the first that differs or is not finite, by name.
        """
        for name in self.copied:
            check_stop(should_stop, _STOPPED)
            expected = evenly(piece for _, piece in self.rest(source, name))
            for ours, theirs in zip(evenly(written.store.chunks(name)), expected, strict=True):
                if ours != theirs:
                    raise VerificationFailed(f"{name} differs from the source model.", "Please report this.")
                dtype = written.store.dtype(name)
                if dtype.is_floating_point and dtype.itemsize > 1 and not _finite(ours, dtype):
                    raise VerificationFailed(f"{name} holds values that are not finite.", "Fetch the model again.")


class PlainWriter:
    """Writes a `PlainPlan`; see `stored.FormatWriter`."""

    def __init__(self, plan: PlainPlan, folder: Path) -> None:
        self._plan = plan
        self._folder = folder
        self._writer = CheckpointWriter(folder, plan.tensors)

    def write(self, layer: StoredLayer) -> None:
        """Put one layer, as `PlainPlan.stored` made it, into its place."""
        (weight,) = layer.parts()
        self._writer.write(f"{layer.name}.weight", weight.T if layer.name in self._plan.transposed else weight)

    def begin(self, source: Path) -> None:
        """Config, and the side files of `source`."""
        write_json(self._folder / "config.json", self._plan.config)
        carry_over(source, self._folder)

    def finish(self, store: TensorStore, should_stop: ShouldStop) -> None:
        """Other tensors, rounded.

        Raises:
            ValueError: a tensor has numbers beyond the type's range.
        """
        for name in self._plan.copied:
            self._writer.write_pieces(name, _stoppable((new for _, new in self._plan.rest(store, name)), should_stop))
        self._writer.close()

    def abort(self) -> None:
        """Remove the tensors that were written; does nothing after `finish` or `leave`."""
        self._writer.abort()

    def leave(self) -> None:
        """Close the files and let them lie as they are."""
        self._writer.leave()


def plan_plain(name: str, tree: ModelTree, plans: Sequence[LayerPlan], source_config: Mapping[str, Any]) -> PlainPlan:
    """What the model becomes as floating-point numbers.

    Args:
        name: one of `names.PLAIN`.
        tree: of the original, with a weight [out, in] for every quantized linear.
        plans: one for each linear of the tree; those whose scheme is quantized come through `PlainPlan.stored`.
        source_config: the source's config.json.

    Raises:
        BadInput: an unknown format, or a quantized head that shares the embedding's weight.
    """
    if name not in PLAIN:
        raise BadInput(f"There is no output format {name!r}.", f"Choose from {', '.join(PLAIN)}.")
    layers = {item.linear.name: item for item in plans if item.scheme.quantized}
    weights = {f"{layer}.weight" for layer in layers}
    conv1d = tree.model_type in _CONV1D
    transposed = frozenset(
        layer for layer, item in layers.items() if item.linear.transposed or (conv1d and item.linear.block >= 0)
    )
    tensors = [_planned(name, info, layers, transposed) for info in tree.tensors.values()]
    missing = weights - set(tree.tensors)
    if missing:
        raise BadInput(f"{min(missing)} is no tensor of the source.", "Please report this.")
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
    """The source's config without its quantization, and with the new type under the key that it used."""
    config = copy.deepcopy(dict(source))
    config.pop("quantization_config", None)
    # older files say torch_dtype, newer ones dtype, and nested ones both in places of their own
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]
    said = [(part, key) for part in parts for key in ("dtype", "torch_dtype") if key in part]
    for part, key in said or [(config, "dtype")]:
        part[key] = _DTYPES[name]
    return config


def _cast(values: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    found = values.to(dtype)
    if not bool(torch.isfinite(found).all()):
        if bool(torch.isfinite(values).all()):
            raise ValueError(f"{name} has numbers up to {float(values.abs().max()):.3g}, beyond the range of {dtype}")
        raise ValueError(f"{name} holds numbers that are not finite")
    return found


def _finite(data: bytes, dtype: torch.dtype) -> bool:
    return bool(torch.isfinite(torch.frombuffer(bytearray(data), dtype=dtype)).all())


def _bytes(values: Tensor) -> bytes:
    return values.contiguous().view(torch.uint8).numpy().tobytes()


def _stoppable(pieces: Iterator[bytes], should_stop: ShouldStop) -> Iterator[bytes]:
    for piece in pieces:
        check_stop(should_stop, _STOPPED)
        yield piece
