"""Reading of single tensors of a checkpoint folder by byte range, without caching.

Files are read instead of memory-mapped: mapped pages count as resident memory until the map is closed, and the memory
of a run must not grow with the number of layers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core.errors import CorruptFile, ModelNotFound
from core.model.headers import TensorInfo, read_folder
from core.model.tensor_part import TensorPart
from core.model.tree import Linear, ModelTree
from core.model.writer import TORCH_DTYPES

_CHUNK = 1 << 23


def evenly(pieces: Iterable[bytes], size: int = _CHUNK) -> Iterator[bytes]:
    """Split a stream of bytes into pieces of `size`, so that two streams of a tensor can be compared piece by piece."""
    left = bytearray()
    for piece in pieces:
        left += piece
        while len(left) >= size:
            yield bytes(left[:size])
            del left[:size]
    if left:
        yield bytes(left)


class TensorStore:
    """The tensors of a checkpoint folder, read on demand.

    Attributes:
        folder: of the checkpoint.
        table: tensor name -> TensorInfo, from the headers.
    """

    def __init__(self, folder: Path, table: dict[str, TensorInfo] | None = None) -> None:
        self.folder = folder
        self.table = read_folder(folder) if table is None else table

    def __contains__(self, name: str) -> bool:
        return name in self.table

    def get(self, name: str) -> Tensor:
        """Return a copy of the tensor in its stored dtype.

        Raises:
            CorruptFile: there is no such tensor, its dtype is unknown, or the file was truncated meanwhile.
            ModelNotFound: the file no longer exists.
        """
        info = self.info(name)
        buffer = torch.empty(info.nbytes, dtype=torch.uint8)
        with self._reading(info), (self.folder / info.file).open("rb", buffering=0) as stream:
            stream.seek(info.start)
            view, done = memoryview(buffer.numpy().data), 0
            while done < info.nbytes:
                count = stream.readinto(view[done:])
                if not count:
                    raise CorruptFile(f"{info.file} ended inside the tensor {name}.", "Download the model again.")
                done += count
        return buffer.view(self.dtype(name)).reshape(info.shape)

    def rows(self, name: str, index: Tensor) -> Tensor:
        """Return the entries `index` (int64 [n]) of the first dimension of a tensor, shape [n, ...], reading no others.

        These are rows of a matrix, or the matrices of single experts.
        """
        info = self.info(name)
        width = info.nbytes // info.shape[0]
        with self._reading(info):
            try:
                mapped = np.memmap(self.folder / info.file, np.uint8, "r", info.start, (info.shape[0], width))
            except ValueError as error:  # the file is shorter
                raise CorruptFile(
                    f"{info.file} ended inside the tensor {name}.", "Download the model again."
                ) from error
        gathered = torch.from_numpy(np.ascontiguousarray(mapped[index.numpy()]))
        del mapped
        return gathered.view(self.dtype(name)).reshape(len(index), *info.shape[1:])

    def blocks(self, name: str, index: Tensor) -> tuple[str, Tensor] | None:
        """Return the GGUF block type of a matrix in the source, and the bytes of its rows `index`, uint8.

        None if the source does not store it in blocks, which is always the case here; GGUF sources override this.
        """
        return None

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the raw bytes of the tensor in pieces of 8 MiB."""
        info = self.info(name)
        left = info.nbytes
        with self._reading(info), (self.folder / info.file).open("rb") as stream:
            stream.seek(info.start)
            while left:
                piece = stream.read(min(_CHUNK, left))
                if not piece:
                    raise CorruptFile(f"{info.file} ended inside the tensor {name}.", "Download the model again.")
                left -= len(piece)
                yield piece

    @contextlib.contextmanager
    def _reading(self, info: TensorInfo) -> Iterator[None]:
        """Raise ModelNotFound if the file or its disk is no longer available."""
        try:
            yield
        except OSError as error:
            raise ModelNotFound(
                f"{self.folder / info.file} can no longer be read: {error.strerror}.",
                "Move the model back to this folder, and start again.",
            ) from error

    def info(self, name: str) -> TensorInfo:
        try:
            return self.table[name]
        except KeyError:
            raise CorruptFile(f"The checkpoint has no tensor {name}.", "Download the model again.") from None

    def dtype(self, name: str) -> torch.dtype:
        code = self.info(name).dtype
        if code not in TORCH_DTYPES:
            raise CorruptFile(f"The tensor {name} has the unknown type {code}.", "Use a checkpoint in 16 or 32 bits.")
        return TORCH_DTYPES[code]


def read_linear(store: TensorStore, tree: ModelTree, linear: Linear) -> Tensor:
    """Return the weight of a linear layer, contiguous [out_features, in_features] in its stored dtype.

    For an expert in a tensor with all experts, only the bytes of that expert are read.

    Raises:
        CorruptFile, ModelNotFound: as `TensorStore.get`.
    """
    part = linear.part or TensorPart(tree.weight_of(linear), None, (0, linear.out_features, 1), linear.transposed)
    start, stop, step = part.rows
    if part.expert is None:
        weight = store.get(part.tensor)
    elif len(store.info(part.tensor).shape) == 3:
        weight = store.rows(part.tensor, torch.tensor([part.expert]))[0]
    else:
        height = linear.in_features if part.transposed else linear.out_features
        weight = store.rows(part.tensor, torch.arange(part.expert * height, (part.expert + 1) * height))
    weight = weight.t() if part.transposed else weight
    return weight[start:stop:step].contiguous()


def read_bias(store: TensorStore, tree: ModelTree, linear: Linear) -> Tensor | None:
    """Return the bias of a linear layer, [out_features] in its stored dtype; None if it has none.

    Raises:
        CorruptFile, ModelNotFound: as `TensorStore.get`.
    """
    name = tree.bias_of(linear)
    if not name:
        return None
    if linear.part is None or linear.part.expert is None:
        return store.get(name)
    start, stop, step = linear.part.rows
    return store.rows(name, torch.tensor([linear.part.expert]))[0, start:stop:step].contiguous()
