"""A tensor store that detects changes: each tensor is hashed when first read and compared at every later read.

A run reads its source for hours. If the files are replaced meanwhile by others with the same shapes, headers and sizes
still match, and the output would be a mixture of two models.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from core.errors import CorruptFile
from core.model.weights import TensorStore

_LARGEST = torch.finfo(torch.float32).max


class FingerprintedStore(TensorStore):
    """A view of another store that compares each full read of a tensor with the hash of the first one.

    The first full read also rejects values that are not finite or exceed the range of 32-bit floats, in which the
    residual stream and the norms are computed.

    Args:
        store: reads the tensors.

    Attributes:
        largest: tensor name -> largest absolute value, for the tensors that were read in full.
        nbytes_read: total bytes of those tensors.
    """

    def __init__(self, store: TensorStore) -> None:
        super().__init__(store.folder, store.table)
        self._store = store
        self.largest: dict[str, float] = {}
        self.nbytes_read = 0
        self._digests: dict[str, str] = {}
        self._read_in_part: set[str] = set()

    def get(self, name: str) -> Tensor:
        """Return a copy of the tensor in its stored dtype.

        Raises:
            CorruptFile: as `TensorStore.get`; or values are not finite; or the tensor has changed.
            ModelNotFound: the file no longer exists.
        """
        known = name in self._digests
        try:
            value = self._store.get(name)
        except CorruptFile as error:
            if known:
                raise self._changed(name) from error
            raise
        self._compare(name, hashlib.sha256(_bytes(value)).hexdigest())
        if not known:
            found = _Range()
            found.add(value)
            self._keep(name, found)
        return value

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the tensor's raw bytes in pieces; a change is detected before the last piece is yielded.

        Raises:
            CorruptFile: as `get`.
            ModelNotFound: the file no longer exists.
        """
        digest, known, found = hashlib.sha256(), name in self._digests, _Range()
        dtype, last = self.dtype(name), b""
        try:
            for piece in self._store.chunks(name):
                if last:
                    yield last
                digest.update(piece)
                if not known:
                    found.add(torch.frombuffer(bytearray(piece), dtype=dtype))
                last = piece
        except CorruptFile as error:
            if known:
                raise self._changed(name) from error
            raise
        self._compare(name, digest.hexdigest())
        if not known:
            self._keep(name, found)
        if last:
            yield last

    def rows(self, name: str, index: Tensor) -> Tensor:
        """Return the rows `index` (int64 [n]) of a 2-D tensor, shape [n, columns], without a check; see `confirm`."""
        if name in self._digests:
            self._read_in_part.add(name)
        return self._store.rows(name, index)

    def blocks(self, name: str, index: Tensor) -> tuple[str, Tensor] | None:
        """Return the GGUF block type and the bytes of some rows; see `TensorStore.blocks`."""
        return self._store.blocks(name, index)

    def scan(self, names: Iterable[str], check_stop: Callable[[], None]) -> None:
        """Read the tensors that were not yet read in full, one piece at a time.

        Args:
            names: tensors to read.
            check_stop: called before each tensor; raises an exception to stop.

        Raises:
            CorruptFile: as `get`.
        """
        for name in names:
            if name not in self._digests:
                check_stop()
                for _ in self.chunks(name):
                    pass

    def confirm(self, check_stop: Callable[[], None]) -> None:
        """Read and compare the tensors of which single rows were read since their last full read.

        Raises:
            CorruptFile: a tensor has changed.
        """
        for name in sorted(self._read_in_part):
            check_stop()
            for _ in self.chunks(name):
                pass

    def fingerprint(self) -> str:
        """Return the SHA-256 of the names, dtypes, shapes and contents of all tensors that were read in full."""
        whole = hashlib.sha256()
        for name in sorted(self._digests):
            info = self.table[name]
            whole.update(f"{name}\0{info.dtype}\0{list(info.shape)}\0{self._digests[name]}\n".encode())
        return whole.hexdigest()

    def _compare(self, name: str, digest: str) -> None:
        if self._digests.setdefault(name, digest) != digest:
            raise self._changed(name)
        self._read_in_part.discard(name)

    def _keep(self, name: str, found: _Range) -> None:
        if found.odd and self.info(name).numel > 1:  # a limit of activations may be infinite (Gemma 4's towers)
            del self._digests[name]
            values = "1 value that is" if found.odd == 1 else f"{found.odd} values that are"
            raise CorruptFile(
                f"{name} contains {values} not finite (NaN or infinity).",
                "Download the model again, or use another one.",
            )
        if found.largest > _LARGEST:
            del self._digests[name]
            raise CorruptFile(
                f"{name} contains the value {found.largest:.3g}, which exceeds the range of 32-bit floats.",
                "Use a checkpoint in 16 or 32 bits.",
            )
        self.largest[name] = found.largest
        self.nbytes_read += self.info(name).nbytes

    def _changed(self, name: str) -> CorruptFile:
        return CorruptFile(
            f"The weights in {self.folder / self.info(name).file} were changed while they were in use: {name} differs "
            "from its content at the start of the run.",
            "Start again when no other program writes to the model folder.",
        )


class _Range:
    """Largest absolute value and number of non-finite values of one tensor, collected piece by piece."""

    def __init__(self) -> None:
        self.odd = 0
        self.largest = 0.0

    def add(self, values: Tensor) -> None:
        if not values.numel() or not values.dtype.is_floating_point or values.dtype.itemsize == 1:
            return
        # aminmax is one pass without a copy and propagates NaN; isfinite is 20 times slower in bfloat16
        low, high = (float(value) for value in values.aminmax())
        if low - low == 0 and high - high == 0:
            self.largest = max(self.largest, -low, high)
        else:
            self.odd += int((~values.isfinite()).sum())


def _bytes(value: Tensor) -> memoryview:
    return memoryview(value.reshape(-1).view(torch.uint8).numpy().data)
