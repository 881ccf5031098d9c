"""Storage for the hidden states of all samples, in memory or in a memory-mapped file."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor


class Activations:
    """Hidden states [samples, tokens, hidden_size] that are read and overwritten batch by batch.

    Attributes:
        data: the tensor; memory-mapped from `file` if one is given.
    """

    def __init__(self, shape: tuple[int, int, int], dtype: torch.dtype, file: Path | None = None) -> None:
        if file is None:
            self.data = torch.empty(shape, dtype=dtype)
        else:
            size = shape[0] * shape[1] * shape[2]
            self.data = torch.from_file(str(file), shared=True, size=size, dtype=dtype).view(shape)
            if os.name == "posix":
                file.unlink()  # the mapping keeps the data, and a killed run leaves no file behind

    def __len__(self) -> int:
        return len(self.data)

    def read(self, index: Tensor | slice, device: torch.device) -> Tensor:
        """Return samples as float32 [batch, tokens, hidden_size] on `device`."""
        return self.data[index].to(device, torch.float32)

    def write(self, index: slice, value: Tensor) -> None:
        """Overwrite samples."""
        self.data[index] = value.to(self.data.device, self.data.dtype)
