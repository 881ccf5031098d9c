"""Storage for the hidden states of all samples, in memory or in a memory-mapped file."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from core.inference.memory import drop_pages


class Activations:
    """Outputs of blocks [samples, ...], such as hidden states, that are read and overwritten batch by batch.

    Those in a file need no resident memory between two uses.

    Attributes:
        data: the tensor; memory-mapped from `file` if one is given.

    Raises:
        OSError: the disk has too little free space for the file.
    """

    def __init__(self, shape: Sequence[int], dtype: torch.dtype, file: Path | None = None) -> None:
        self._mapped = file is not None
        if file is None:
            self.data = torch.empty(tuple(shape), dtype=dtype)
        else:
            size = math.prod(shape)
            _reserve(file, size * dtype.itemsize)
            self.data = torch.from_file(str(file), shared=True, size=size, dtype=dtype).view(tuple(shape))
            if os.name == "posix":
                file.unlink()  # the mapping keeps the data, and a killed run leaves no file behind

    def __len__(self) -> int:
        return len(self.data)

    def read(self, index: Tensor | slice, device: torch.device) -> Tensor:
        """Return samples as float32 [batch, tokens, hidden_size] on `device`."""
        return self._taken(self.data[index].to(device, torch.float32, copy=self._mapped))

    def read_exact(self, index: Tensor | slice, device: torch.device) -> Tensor:
        """Return samples on `device`: float32, or unchanged if they are not floating-point numbers."""
        value = self.data[index]
        dtype = torch.float32 if value.dtype.is_floating_point else value.dtype
        return self._taken(value.to(device, dtype, copy=self._mapped))

    def write(self, index: slice, value: Tensor) -> None:
        """Overwrite samples."""
        self.data[index] = value.to(self.data.device, self.data.dtype)
        if self._mapped:
            drop_pages(self.data)

    def _taken(self, value: Tensor) -> Tensor:
        """Return a copy of some samples, after their pages in the file were dropped."""
        if self._mapped:
            drop_pages(self.data)
        return value


def _reserve(file: Path, nbytes: int) -> None:
    """Create a file with space on the disk: a process is killed if it writes to a mapped page that gets none."""
    with file.open("wb") as stream:
        if nbytes and hasattr(os, "posix_fallocate"):  # Linux
            os.posix_fallocate(stream.fileno(), 0, nbytes)
