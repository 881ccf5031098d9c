"""The hidden states of all calibration samples, in memory or, past a limit, in a file. Knows tensors, not models."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor


class Activations:
    """Hidden states [samples, tokens, width] that are read and overwritten batch by batch.

    Attributes:
        data: the tensor; backed by `file` where one was given.
    """

    def __init__(self, shape: tuple[int, int, int], dtype: torch.dtype, file: Path | None = None) -> None:
        if file is None:
            self.data = torch.empty(shape, dtype=dtype)
        else:
            size = shape[0] * shape[1] * shape[2]
            self.data = torch.from_file(str(file), shared=True, size=size, dtype=dtype).view(shape)
            if os.name == "posix":
                file.unlink()  # the map keeps it alive, and even a killed run leaves nothing behind

    def __len__(self) -> int:
        return len(self.data)

    def read(self, index: Tensor | slice, device: torch.device) -> Tensor:
        """Samples as fp32 [batch, tokens, width] on `device`."""
        return self.data[index].to(device, torch.float32)

    def write(self, index: slice, value: Tensor) -> None:
        self.data[index] = value.to(self.data.device, self.data.dtype)
