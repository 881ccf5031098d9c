"""A tensor store of a quantized checkpoint in which quantized layers are 32-bit floats, dequantized on demand."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import Tensor

from core.formats.stored import Checkpoint, by_rows
from core.model.headers import TensorInfo
from core.model.weights import TensorStore

_PIECE = 1 << 21
"""Weights that are dequantized at a time."""


class DenseStore(TensorStore):
    """The tensors of a checkpoint, with float32 weights [out, in] in place of quantized layers.

    No weight is kept in memory: each call of `get`, `rows` or `chunks` reads and dequantizes the layer again.

    Args:
        checkpoint: the source.
        layers: names of the quantized layers to be included; all by default.
        transposed: names of those that are presented as [in, out], as Conv1D of transformers stores them.
    """

    def __init__(
        self, checkpoint: Checkpoint, layers: Collection[str] | None = None, transposed: Collection[str] = ()
    ) -> None:
        self._checkpoint = checkpoint
        self._transposed = frozenset(checkpoint.weight_name(name) for name in transposed if name in checkpoint.schemes)
        self._layers = {
            checkpoint.weight_name(name): name for name in checkpoint.schemes if layers is None or name in layers
        }
        kept = checkpoint.store.table
        table: dict[str, TensorInfo] = {}
        for name, info in checkpoint.dense_table().items():
            if name in self._layers:
                shape = info.shape[::-1] if name in self._transposed else info.shape
                table[name] = TensorInfo(name, "F32", shape, info.file, 0, 4 * info.numel)
            elif name in kept:
                table[name] = kept[name]
        super().__init__(checkpoint.folder, table)

    def get(self, name: str) -> Tensor:
        """Return the tensor in new memory: float32 [out, in] for a quantized layer, else in its stored dtype."""
        if name not in self._layers:
            return self._checkpoint.store.get(name)
        weight = self._checkpoint.layer(self._layers[name]).dequantize()
        return weight.T.contiguous() if name in self._transposed else weight

    def rows(self, name: str, index: Tensor) -> Tensor:
        """Return the rows `index` (int64 [n]) of a matrix, shape [n, columns]."""
        if name not in self._layers:
            return self._checkpoint.store.rows(name, index)
        if name in self._transposed:
            return self.get(name)[index]
        return self._checkpoint.layer(self._layers[name]).take(index).dequantize()

    def blocks(self, name: str, index: Tensor) -> tuple[str, Tensor] | None:
        """Return the GGUF block type and the bytes of some rows; see `TensorStore.blocks`."""
        return None if name in self._layers else self._checkpoint.store.blocks(name, index)

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the raw bytes of the tensor in pieces."""
        if name not in self._layers:
            yield from self._checkpoint.store.chunks(name)
            return
        if name in self._transposed:
            yield self.get(name).view(torch.uint8).numpy().tobytes()
            return
        columns = self.info(name).shape[1]
        for rows in by_rows(self._checkpoint.layer(self._layers[name]), max(1, _PIECE // columns)):
            yield rows.contiguous().view(torch.uint8).numpy().tobytes()


def dense_store(checkpoint: Checkpoint) -> TensorStore:
    """Return the tensors of a checkpoint, with float32 weights in place of quantized layers."""
    return DenseStore(checkpoint) if checkpoint.schemes else checkpoint.store
