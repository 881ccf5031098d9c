"""A tensor store in which some tensors are replaced by others with the same dtypes and shapes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from core.model.weights import TensorStore


class ReplacedStore(TensorStore):
    """A view of a store with other values of some tensors, such as norms that were learned.

    Args:
        store: the other tensors.
        values: the replaced tensors by name, in the dtypes and shapes of `store`.

    Raises:
        ValueError: a tensor has another dtype or shape.
    """

    def __init__(self, store: TensorStore, values: Mapping[str, Tensor]) -> None:
        super().__init__(store.folder, store.table)
        self._store = store
        self._values = dict(values)
        for name, value in self._values.items():
            if value.dtype != store.dtype(name) or tuple(value.shape) != tuple(store.info(name).shape):
                raise ValueError(f"{name} is {value.dtype} {tuple(value.shape)}, unlike the tensor that it replaces")

    def get(self, name: str) -> Tensor:
        """Return a copy of the tensor in its stored dtype."""
        return self._values[name].clone() if name in self._values else self._store.get(name)

    def rows(self, name: str, index: Tensor) -> Tensor:
        """Return the entries `index` (int64 [n]) of the first dimension of a tensor, shape [n, ...]."""
        return self._values[name][index] if name in self._values else self._store.rows(name, index)

    def blocks(self, name: str, index: Tensor) -> tuple[str, Tensor] | None:
        """Return the GGUF block type and the bytes of some rows; see `TensorStore.blocks`."""
        return None if name in self._values else self._store.blocks(name, index)

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the raw bytes of the tensor in pieces."""
        if name in self._values:
            yield self._values[name].contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        else:
            yield from self._store.chunks(name)
