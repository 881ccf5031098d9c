"""A tensor store that unpacks the quantized weights of a source while they are read.

Products of values and scales are computed in float32 and rounded to nearest once, to the 16-bit dtype of the table.
Values are decoded by slices of rows, so that memory does not grow with the size of a tensor beyond its result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from core.errors import CorruptFile
from core.formats.dequantized import decode
from core.formats.dequantized.source import SourceTensors
from core.formats.dequantized.stored_weight import EXPONENTS, StoredWeight
from core.formats.reader import QuantizedCheckpoint
from core.model.headers import TensorInfo, short
from core.model.weights import TensorStore
from core.model.writer import TORCH_DTYPES

_SLICE: Final = 1 << 22
"""Number of weights that are decoded at a time."""
_AGAIN: Final = "Download the model again."


def open_store(folder: Path, source: SourceTensors, table: Mapping[str, TensorInfo] | None = None) -> TensorStore:
    """Return a store of the tensors of a source as floats.

    Args:
        folder: of the source.
        source: from its headers.
        table: the tensors to be available; all by default.
    """
    tensors = dict(source.table if table is None else table)
    if source.packed is not None:
        return PackedStore(QuantizedCheckpoint(folder), tensors)
    return DequantizedStore(folder, tensors, source.stored) if source.stored else TensorStore(folder, tensors)


class DequantizedStore(TensorStore):
    """The tensors of a checkpoint in FP8, MXFP4, NVFP4 or a format of compressed-tensors, with unpacked weights.

    Args:
        folder: of the checkpoint.
        table: tensor name in the original model -> TensorInfo.
        stored: name -> storage of the weights that are unpacked.
    """

    def __init__(self, folder: Path, table: dict[str, TensorInfo], stored: Mapping[str, StoredWeight]) -> None:
        super().__init__(folder, table)
        self._stored = {name: weight for name, weight in stored.items() if name in table}
        self._raw = TensorStore(folder, {info.name: info for item in self._stored.values() for info in _parts(item)})

    def get(self, name: str) -> Tensor:
        """Return the tensor in the dtype of the table, in new memory.

        Raises:
            CorruptFile: there is no such tensor, a scale is not finite, or the file was truncated meanwhile.
            ModelNotFound: the file no longer exists.
        """
        weight = self._stored.get(name)
        if weight is None:
            return super().get(name)
        return self.rows(name, torch.arange(weight.info.shape[0]))

    def rows(self, name: str, index: Tensor) -> Tensor:
        """Return the rows `index` (int64 [n]) of a matrix, or the matrices `index` of a 3-D tensor; reads no others."""
        weight = self._stored.get(name)
        if weight is None:
            return super().rows(name, index)
        found = torch.empty((len(index), *weight.info.shape[1:]), dtype=self.dtype(name))
        if len(weight.info.shape) == 2:
            for start, part in _slices(index, weight.columns):
                found[start : start + len(part)] = self._decode(weight, part)
            return found
        for target, matrix in zip(found, index.tolist(), strict=True):
            target = target.T if weight.transposed else target
            for start, part in _slices(torch.arange(weight.rows) + matrix * weight.rows, weight.columns):
                target[start : start + len(part)] = self._decode(weight, part)
        return found

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of the tensor in the dtype of the table, in pieces of bounded size."""
        weight = self._stored.get(name)
        if weight is None:
            yield from super().chunks(name)
            return
        step = max(1, _SLICE // weight.columns) if len(weight.info.shape) == 2 else 1
        for part in torch.arange(weight.info.shape[0]).split(step):
            yield self.rows(name, part).view(torch.uint8).numpy().tobytes()

    def _decode(self, weight: StoredWeight, rows: Tensor) -> Tensor:
        """Return rows of the matrices, counted through all matrices, float32 [n, columns]."""
        values = self._values(weight, rows)
        scales = self._scales(weight, rows)
        order = self._order(weight)
        if order is not None:
            return values.mul_(scales[:, order])
        width, groups = weight.block[1], scales.shape[1]
        if groups == 1:
            return values.mul_(scales)
        if weight.columns == groups * width:
            values.view(len(rows), groups, width).mul_(scales.unsqueeze(-1))
            return values
        return values.mul_(scales.repeat_interleave(width, dim=1)[:, : weight.columns])

    def _values(self, weight: StoredWeight, rows: Tensor) -> Tensor:
        """Return the stored values minus their zero points, float32 [n, columns]."""
        data = self._raw.rows(weight.values.name, rows)
        if weight.encoding == "float8":
            return decode.float8(data, weight.values.dtype)
        if weight.encoding == "float4":
            return decode.fp4(data)
        if weight.encoding == "int8":
            values = data.view(torch.int8).to(torch.int32)
        else:
            values = decode.packed_integers(data.view(torch.int32), weight.bits, weight.columns)
            values -= 1 << (weight.bits - 1)
        if weight.zeros is not None:
            values -= self._zeros(weight, weight.zeros, rows)
        return values.to(torch.float32)

    def _zeros(self, weight: StoredWeight, info: TensorInfo, rows: Tensor) -> Tensor:
        """Return the zero points of rows and all columns, int32 [n, columns] or [n, 1]."""
        height, groups = weight.grid
        zeros = self._raw.get(info.name)
        if info.dtype == "I32":  # packed along the rows
            zeros = decode.packed_integers(zeros.T.contiguous(), weight.bits, height).T - (1 << (weight.bits - 1))
        zeros = zeros.reshape(height, groups)[rows // weight.block[0]].to(torch.int32)
        if groups == 1:
            return zeros
        order = self._order(weight)
        return zeros[:, torch.arange(weight.columns) // weight.block[1] if order is None else order]

    def _scales(self, weight: StoredWeight, rows: Tensor) -> Tensor:
        """Return the scales of rows, float32 [n, groups], including the second scale of the matrix."""
        name, dtype = weight.scales.name, weight.scales.dtype
        matrix, height = rows // weight.rows, weight.grid[0]
        index = matrix * height + rows % weight.rows // weight.block[0] if height else torch.zeros_like(rows)
        data = self._raw.rows(name, index)
        try:
            if dtype in EXPONENTS:
                return decode.powers_of_two(data)
            scales = data.view(decode.FLOAT8.get(dtype) or TORCH_DTYPES[dtype]).to(torch.float32)
            if weight.factor is not None:
                factor = self._raw.get(weight.factor.name).to(torch.float32).reshape(-1)
                factor = factor[matrix].unsqueeze(-1) if len(factor) > 1 else factor
                scales = scales / factor if weight.divides else scales * factor
            if not bool(torch.isfinite(scales).all()):
                raise ValueError("values that are not finite")
        except ValueError as error:
            raise CorruptFile(f"{short(name)} contains {error}.", _AGAIN) from error
        return scales

    def _order(self, weight: StoredWeight) -> Tensor | None:
        """Return the group of each column, int64 [columns]; None if the groups are in natural order."""
        if weight.order is None:
            return None
        order = self._raw.get(weight.order.name).to(torch.int64)
        if not bool(order.clamp_min(0).any()):  # zeros, or -1 in the files of llm-compressor, as a placeholder
            return None
        if int(order.min()) < 0 or int(order.max()) >= weight.grid[1]:
            raise CorruptFile(f"{short(weight.order.name)} contains groups that do not exist.", _AGAIN)
        return order


class PackedStore(TensorStore):
    """The tensors of a checkpoint of AutoRound, GPTQ or AWQ, with unpacked weights.

    Args:
        checkpoint: the quantized checkpoint.
        table: tensor name in the original model -> TensorInfo.
    """

    def __init__(self, checkpoint: QuantizedCheckpoint, table: dict[str, TensorInfo]) -> None:
        super().__init__(checkpoint.folder, table)
        self._checkpoint = checkpoint
        names = {checkpoint.weight_name(name): name for name in checkpoint.schemes}
        self._layers = {weight: name for weight, name in names.items() if weight in table}

    def get(self, name: str) -> Tensor:
        """Return the tensor in the dtype of the table, in new memory; see `DequantizedStore.get`."""
        layer = self._layers.get(name)
        return super().get(name) if layer is None else _half(self._checkpoint.layer(layer).dequantize(), name)

    def rows(self, name: str, index: Tensor) -> Tensor:
        """Return the rows `index` (int64 [n]) of a matrix, shape [n, columns]; dequantizes no others."""
        layer = self._layers.get(name)
        if layer is None:
            return super().rows(name, index)
        return _half(self._checkpoint.layer(layer).take(index).dequantize(), name)

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of the tensor in the dtype of the table, in pieces."""
        if name not in self._layers:
            yield from super().chunks(name)
            return
        weight = self.get(name)
        for part in weight.split(max(1, _SLICE // weight.shape[1])):
            yield part.view(torch.uint8).numpy().tobytes()


def _half(weight: Tensor, name: str) -> Tensor:
    """Return a weight in float16.

    Raises:
        CorruptFile: a value exceeds the range of float16.
    """
    half = weight.to(torch.float16)
    if bool(half.isinf().any()):
        largest = float(weight.abs().max())
        raise CorruptFile(
            f"{short(name)} contains the value {largest:.3g}, which exceeds the range of 16-bit floats.",
            "Use the original model.",
        )
    return half


def _parts(weight: StoredWeight) -> Iterator[TensorInfo]:
    """Yield the tensors of a weight; values and scales as bytes, one row for each row of the matrices."""
    rows = weight.matrices * weight.rows
    yield replace(weight.values, dtype="U8", shape=(rows, weight.values.nbytes // rows))
    rows = max(1, weight.matrices * weight.grid[0])
    yield replace(weight.scales, dtype="U8", shape=(rows, weight.scales.nbytes // rows))
    yield from (part for part in (weight.factor, weight.zeros, weight.order) if part is not None)


def _slices(index: Tensor, columns: int) -> Iterator[tuple[int, Tensor]]:
    """Yield the index in slices that bound the number of weights, with the position of each slice."""
    step = max(1, _SLICE // columns)
    for start in range(0, len(index), step):
        yield start, index[start : start + step]
