"""The hidden states that enter each block, in a file: there are as many as blocks, and memory must not grow with them.

Plain reads and writes: pages of a mapped file count as the process's own. Knows tensors, not models.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from core.errors import DiskFull


class HiddenStates:
    """Hidden states [samples, tokens, width] under a number each, written and read by samples.

    The file has no name, so that nothing is left of it whatever happens. Used as a context, which closes it.

    Args:
        shape: samples, tokens, width; dtype: in which they are stored; folder: where there is room.
    """

    def __init__(self, shape: tuple[int, int, int], dtype: torch.dtype, folder: Path) -> None:
        self.shape = shape
        self.dtype = dtype
        self._sample_bytes = shape[1] * shape[2] * dtype.itemsize
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by `__exit__`

    def __enter__(self) -> HiddenStates:
        return self

    def __exit__(self, *_error: object) -> None:
        self._file.close()

    def read(self, number: int, part: slice, device: torch.device) -> Tensor:
        """Samples as fp32 [batch, tokens, width] on `device`."""
        start, stop, _ = part.indices(self.shape[0])
        data = bytearray((stop - start) * self._sample_bytes)
        self._file.seek(self._offset(number, start))
        self._file.readinto(data)
        stored = torch.frombuffer(data, dtype=self.dtype).view(stop - start, *self.shape[1:])
        return stored.to(device, torch.float32)

    def write(self, number: int, part: slice, value: Tensor) -> None:
        """Keep samples, of any dtype.

        Raises:
            DiskFull: there is no room for them.
        """
        start, _, _ = part.indices(self.shape[0])
        stored = value.detach().to("cpu", self.dtype).contiguous().view(torch.uint8)
        try:
            self._file.seek(self._offset(number, start))
            self._file.write(stored.numpy().tobytes())
            self._file.flush()
        except OSError as error:
            raise DiskFull(
                "The disk has no room for what the model computes on the way.", "Free some room, or use fewer samples."
            ) from error

    def _offset(self, number: int, sample: int) -> int:
        return (number * self.shape[0] + sample) * self._sample_bytes
