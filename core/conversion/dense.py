"""A tensor store that adds dequantized layers of a source, for outputs that cannot store these layers quantized."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from core.formats.stored import Checkpoint
from core.model.headers import TensorInfo
from core.model.tree import Linear
from core.model.weights import TensorStore

_PIECE = 1 << 23


class DenseStore(TensorStore):
    """The unquantized tensors of a source, and some of its quantized linear layers as 32-bit floats.

    Args:
        store: of the source.
        checkpoint: the source.
        linears: layers to dequantize.
    """

    def __init__(self, store: TensorStore, checkpoint: Checkpoint, linears: Sequence[Linear]) -> None:
        table = dict(store.table)
        self._linears = {f"{linear.name}.weight": linear for linear in linears}
        for name, linear in self._linears.items():
            shape = (linear.out_features, linear.in_features)
            table[name] = TensorInfo(name, "F32", shape, "", 0, 4 * shape[0] * shape[1])
        super().__init__(store.folder, table)
        self._store = store
        self._checkpoint = checkpoint

    def get(self, name: str) -> Tensor:
        """Return a copy of the tensor."""
        if name not in self._linears:
            return self._store.get(name)
        return self._checkpoint.layer(self._linears[name].name).dequantize()

    def rows(self, name: str, index: Tensor) -> Tensor:
        """Return the rows `index` (int64 [n]) of a matrix, shape [n, columns]."""
        return self.get(name)[index] if name in self._linears else self._store.rows(name, index)

    def blocks(self, name: str, index: Tensor) -> tuple[str, Tensor] | None:
        """Return the GGUF block type and the bytes of some rows; see `TensorStore.blocks`."""
        return None if name in self._linears else self._store.blocks(name, index)

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the raw bytes of the tensor in pieces."""
        if name not in self._linears:
            yield from self._store.chunks(name)
            return
        data = self.get(name).contiguous().reshape(-1).view(torch.uint8)
        for start in range(0, len(data), _PIECE):
            yield data[start : start + _PIECE].numpy().tobytes()
