"""A temporary file of hidden states, so that memory does not grow with the number of blocks.

The file is read and written explicitly, because the pages of a memory-mapped file count as memory of the process.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from core.errors import DiskFull


class HiddenStates:
    """Numbered tensors of hidden states [samples, tokens, hidden_size] in a file, accessed by slices of samples.

    The file has no name, so it never remains after the process. A context manager, which closes the file on exit.

    Args:
        shape: Samples, tokens, hidden_size.
        dtype: Dtype in the file.
        folder: Folder of the file.
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
        """Return the samples `part` of tensor `number` as float32 [batch, tokens, hidden_size] on `device`."""
        start, stop, _ = part.indices(self.shape[0])
        data = bytearray((stop - start) * self._sample_bytes)
        self._file.seek(self._offset(number, start))
        self._file.readinto(data)
        stored = torch.frombuffer(data, dtype=self.dtype).view(stop - start, *self.shape[1:])
        return stored.to(device, torch.float32)

    def write(self, number: int, part: slice, value: Tensor) -> None:
        """Write the samples `part` of tensor `number`, of any dtype.

        Raises:
            DiskFull: The file cannot be written.
        """
        start, _, _ = part.indices(self.shape[0])
        stored = value.detach().to("cpu", self.dtype).contiguous().view(torch.uint8)
        try:
            self._file.seek(self._offset(number, start))
            self._file.write(stored.numpy().tobytes())
            self._file.flush()
        except OSError as error:
            raise DiskFull(
                "The disk is full; the hidden states of the model cannot be stored.",
                "Free some space, or use fewer samples.",
            ) from error

    def _offset(self, number: int, sample: int) -> int:
        return (number * self.shape[0] + sample) * self._sample_bytes
