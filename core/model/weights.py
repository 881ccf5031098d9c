"""Reading single tensors of a checkpoint folder, by byte range, without keeping any of it.

Plain reads instead of a memory map: mapped pages count as resident until the map is closed, and a run's
memory must not grow with the number of layers. Knows names and bytes, not what the tensors mean.
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
from core.model.writer import TORCH_DTYPES

_CHUNK = 1 << 23


def evenly(pieces: Iterable[bytes], size: int = _CHUNK) -> Iterator[bytes]:
    """The same bytes in pieces of `size`, the last one shorter, so that two streams of one tensor are cut alike."""
    left = bytearray()
    for piece in pieces:
        left += piece
        while len(left) >= size:
            yield bytes(left[:size])
            del left[:size]
    if left:
        yield bytes(left)


class TensorStore:
    """The tensors of a folder, read on demand.

    Attributes:
        folder: the checkpoint.
        table: name -> TensorInfo, from the headers alone.
    """

    def __init__(self, folder: Path, table: dict[str, TensorInfo] | None = None) -> None:
        self.folder = folder
        self.table = read_folder(folder) if table is None else table

    def __contains__(self, name: str) -> bool:
        return name in self.table

    def get(self, name: str) -> Tensor:
        """The whole tensor, in its own dtype, in memory of its own.

        Raises:
            CorruptFile: no such tensor, an unknown dtype, or the file shrank since its header was read.
            ModelNotFound: the file is gone.
        """
        info = self.info(name)
        buffer = torch.empty(info.nbytes, dtype=torch.uint8)
        with self._reading(info), (self.folder / info.file).open("rb", buffering=0) as stream:
            stream.seek(info.start)
            view, done = memoryview(buffer.numpy().data), 0
            while done < info.nbytes:
                count = stream.readinto(view[done:])
                if not count:
                    raise CorruptFile(f"{info.file} ended inside the tensor {name}.", "Fetch the model again.")
                done += count
        return buffer.view(self.dtype(name)).reshape(info.shape)

    def rows(self, name: str, index: Tensor) -> Tensor:
        """Rows `index` (int64 [n]) of a 2-D tensor, shape [n, columns], touching no others."""
        info = self.info(name)
        width = info.nbytes // info.shape[0]
        with self._reading(info):
            mapped = np.memmap(self.folder / info.file, np.uint8, "r", info.start, (info.shape[0], width))
        gathered = torch.from_numpy(np.ascontiguousarray(mapped[index.numpy()]))
        del mapped
        return gathered.view(self.dtype(name)).reshape(len(index), *info.shape[1:])

    def blocks(self, name: str, index: Tensor) -> tuple[str, Tensor] | None:
        """Return the block type of GGUF in which the source has a matrix, and the bytes of rows `index`, uint8.

        None where its numbers are stored as they are, which is always so here.
        """
        return None

    def chunks(self, name: str) -> Iterator[bytes]:
        """The tensor's raw bytes in pieces of 8 MiB."""
        info = self.info(name)
        left = info.nbytes
        with self._reading(info), (self.folder / info.file).open("rb") as stream:
            stream.seek(info.start)
            while left:
                piece = stream.read(min(_CHUNK, left))
                if not piece:
                    raise CorruptFile(f"{info.file} ended inside the tensor {name}.", "Fetch the model again.")
                left -= len(piece)
                yield piece

    @contextlib.contextmanager
    def _reading(self, info: TensorInfo) -> Iterator[None]:
        """Tell plainly that a file went away, or its disk did, since its header was read."""
        try:
            yield
        except OSError as error:
            raise ModelNotFound(
                f"{self.folder / info.file} can no longer be read: {error.strerror}.",
                "Put the model back where it was, and start again.",
            ) from error

    def info(self, name: str) -> TensorInfo:
        try:
            return self.table[name]
        except KeyError:
            raise CorruptFile(f"The checkpoint has no tensor {name}.", "Fetch the model again.") from None

    def dtype(self, name: str) -> torch.dtype:
        code = self.info(name).dtype
        if code not in TORCH_DTYPES:
            raise CorruptFile(f"The tensor {name} has the unknown type {code}.", "Use a checkpoint in 16 or 32 bits.")
        return TORCH_DTYPES[code]
