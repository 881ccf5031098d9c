"""Writing of safetensors checkpoints whose tensors are known in advance and arrive in any order.

All headers and file sizes are fixed at the start. A volume that is too small is therefore detected before any work,
each tensor is written directly to its position, and at most one tensor is in memory. Files are named `*.partial` until
`close`, so that incomplete output does not look like a checkpoint.
"""

from __future__ import annotations

import errno
import json
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

import torch
from torch import Tensor

from core.errors import BitwrightError, DiskFull, OutputProblem
from core.files import free_bytes, sync_folder, with_retries, write_json
from core.model.headers import DTYPE_BITS, INDEX_FILE, SINGLE_FILE
from core.wording import human

MAX_SHARD_BYTES: Final = 5 * 10**9

TORCH_DTYPES: Final[dict[str, torch.dtype]] = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "U16": torch.uint16, "I16": torch.int16,
    "U32": torch.uint32, "I32": torch.int32, "U64": torch.uint64, "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64, "C64": torch.complex64,
}  # fmt: skip
"""safetensors dtype code -> torch dtype, for the codes that have one."""

_PARTIAL = ".partial"
_CHUNK = 1 << 24
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class TensorPlan:
    """Name, safetensors dtype code and shape of a tensor to be written."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        bits = DTYPE_BITS[self.dtype]
        for length in self.shape:
            bits *= length
        return bits // 8


@dataclass
class _Shard:
    """One file of a checkpoint.

    Attributes:
        path: final path.
        header: all bytes before the data.
        places: tensor name -> absolute offset.
        size: of the file in bytes.
        stream: the open file; None when closed.
    """

    path: Path
    header: bytes
    places: dict[str, int]
    size: int
    stream: BinaryIO | None = None

    @property
    def partial(self) -> Path:
        return self.path.with_name(self.path.name + _PARTIAL)


class ClosedOrAborted(ABC):
    """A writer that as a context manager calls `close` on success, and `abort` in any case."""

    @abstractmethod
    def close(self) -> object:
        """Complete the output and rename it to its final name."""

    @abstractmethod
    def abort(self) -> None:
        """Remove the unfinished output; no effect after `close` or `leave`."""

    @abstractmethod
    def leave(self) -> None:
        """Close the files without removing or renaming them."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            self.abort()


class CheckpointWriter(ClosedOrAborted):
    """A writer of `model.safetensors`, or of shards and their index, to an existing folder.

    As a context manager it removes the output if the block fails, and closes it otherwise. It may be used by several
    threads; one tensor is written at a time.

    Args:
        folder: exists and contains no checkpoint.
        tensors: all tensors to be written, with unique names.
        max_shard_bytes: limit on the tensor bytes of a file with more than one tensor.

    Raises:
        DiskFull: the volume has too little free space.
        OutputProblem: the folder is not writable, or contains a checkpoint.
    """

    def __init__(self, folder: Path, tensors: Sequence[TensorPlan], max_shard_bytes: int = MAX_SHARD_BYTES) -> None:
        self._folder = folder
        self._plans = {tensor.name: tensor for tensor in tensors}
        if len(self._plans) != len(tensors):
            raise ValueError("a tensor is planned twice")
        self._shards = _planned_shards(folder, tensors, max_shard_bytes)
        self._shard_of = {name: shard for shard in self._shards for name in shard.places}
        self._missing = dict.fromkeys(self._plans)
        self._lock = threading.Lock()
        self._open_all()

    @property
    def total_bytes(self) -> int:
        """Size of all weight files in bytes, including headers."""
        return sum(shard.size for shard in self._shards)

    @property
    def missing(self) -> list[str]:
        """Names of the tensors that are not yet written, in the order of the plan."""
        return list(self._missing)

    def write(self, name: str, tensor: Tensor) -> None:
        """Write a tensor, which may be on any device.

        Raises:
            ValueError: the tensor is not planned, already written, or of another dtype or shape.
            DiskFull, OutputProblem: the file cannot be written.
        """
        plan = self._claim(name)
        if tensor.dtype != TORCH_DTYPES.get(plan.dtype) or tuple(tensor.shape) != plan.shape:
            raise ValueError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}, planned was {plan.dtype} {plan.shape}")
        flat = tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8)
        self._put(name, flat.numpy().data)

    def write_bytes(self, name: str, data: memoryview) -> None:
        """Write the bytes of a tensor as in safetensors: little-endian, in row-major order.

        Raises:
            ValueError: the tensor is not planned, already written, or of another length.
            DiskFull, OutputProblem: the file cannot be written.
        """
        plan = self._claim(name)
        if data.nbytes != plan.nbytes:
            raise ValueError(f"{name} has {data.nbytes} bytes, planned were {plan.nbytes}")
        self._put(name, data.cast("B"))

    def write_pieces(self, name: str, pieces: Iterable[bytes]) -> None:
        """Write the bytes of a tensor from consecutive pieces, so that it may be larger than memory.

        Raises:
            ValueError: the tensor is not planned, already written, or of another total length.
            DiskFull, OutputProblem: the file cannot be written.
        """
        plan = self._claim(name)
        shard, done = self._shard_of[name], 0
        for piece in pieces:
            if shard.stream is None or done + len(piece) > plan.nbytes:
                raise ValueError(f"{name} has more than the planned {plan.nbytes} bytes, or the writer is closed")
            with self._lock, failures(self._folder):
                write_at(shard.stream, shard.places[name] + done, memoryview(piece))
            done += len(piece)
        if done != plan.nbytes:
            raise ValueError(f"{name} has {done} bytes, planned were {plan.nbytes}")
        del self._missing[name]

    def close(self) -> list[Path]:
        """Flush the files to disk, rename them, and return their paths, the index last.

        Raises:
            ValueError: tensors are missing.
            DiskFull, OutputProblem: a file cannot be written.
        """
        if self._missing:
            raise ValueError(f"{len(self._missing)} tensors were not written, such as {next(iter(self._missing))}")
        with failures(self._folder):
            for shard in self._shards:
                if shard.stream is not None:
                    os.fsync(shard.stream.fileno())
                    shard.stream.close()
                    shard.stream = None
                    self._name(shard)
            paths = [shard.path for shard in self._shards]
            if len(paths) > 1:
                with_retries(lambda: self._partial_index.replace(self._folder / INDEX_FILE))
                paths.append(self._folder / INDEX_FILE)
            sync_folder(self._folder)
        return paths

    def _name(self, shard: _Shard) -> None:
        with_retries(lambda: shard.partial.replace(shard.path))

    def abort(self) -> None:
        """Remove the unfinished files; no effect after `close` or `leave`."""
        for shard in self._shards:
            if shard.stream is not None:
                shard.stream.close()
                shard.stream = None
                with suppress(OSError):
                    shard.partial.unlink(missing_ok=True)
        with suppress(OSError):
            self._partial_index.unlink(missing_ok=True)

    def leave(self) -> None:
        """Close the files without removing or renaming them."""
        for shard in self._shards:
            if shard.stream is not None:
                with suppress(OSError):
                    shard.stream.close()
                shard.stream = None

    def _claim(self, name: str) -> TensorPlan:
        if name not in self._missing:
            raise ValueError(f"{name} is already written" if name in self._plans else f"{name} is not planned")
        return self._plans[name]

    def _put(self, name: str, data: memoryview) -> None:
        shard = self._shard_of[name]
        if shard.stream is None:
            raise ValueError("the writer is closed")
        with self._lock, failures(self._folder):
            write_at(shard.stream, shard.places[name], data)
        del self._missing[name]

    @property
    def _partial_index(self) -> Path:
        return self._folder / (INDEX_FILE + _PARTIAL)

    def _write_index(self) -> None:
        weight_map = {name: self._shard_of[name].path.name for name in self._plans}
        total = sum(plan.nbytes for plan in self._plans.values())
        write_json(self._partial_index, {"metadata": {"total_size": total}, "weight_map": weight_map})

    def _open_all(self) -> None:
        for path in (self._folder / SINGLE_FILE, self._folder / INDEX_FILE, *(shard.path for shard in self._shards)):
            if path.exists():
                raise OutputProblem(f"{path} exists already.", "Choose an empty folder.")
        try:
            with failures(self._folder):
                free = free_bytes(self._folder)
                if free < self.total_bytes:
                    raise DiskFull(
                        f"The output needs {human(self.total_bytes)}, but {self._folder} has {human(free)} free.",
                        "Free some disk space, or choose a folder on another volume.",
                    )
                for shard in self._shards:
                    shard.stream = shard.partial.open("wb", buffering=0)
                    reserve(shard.stream, shard.size)
                    write_at(shard.stream, 0, memoryview(shard.header))
                if len(self._shards) > 1:
                    self._write_index()
        except BitwrightError:
            self.abort()
            raise


def _planned_shards(folder: Path, tensors: Sequence[TensorPlan], limit: int) -> list[_Shard]:
    groups: list[list[TensorPlan]] = [[]]
    size = 0
    for tensor in tensors:
        if groups[-1] and size + tensor.nbytes > limit:
            groups.append([])
            size = 0
        groups[-1].append(tensor)
        size += tensor.nbytes
    count = len(groups)
    names = [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
    return [
        _shard(folder / name, group) for name, group in zip([SINGLE_FILE] if count == 1 else names, groups, strict=True)
    ]


def _shard(path: Path, tensors: list[TensorPlan]) -> _Shard:
    # Readers map the file and need each element aligned to its size, which sorting by element size guarantees.
    if not _aligned(tensors):
        tensors = sorted(tensors, key=lambda tensor: -DTYPE_BITS[tensor.dtype])
    table: dict[str, object] = {"__metadata__": {"format": "pt"}}
    starts = {}
    position = 0
    for tensor in tensors:
        end = position + tensor.nbytes
        table[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [position, end]}
        starts[tensor.name] = position
        position = end
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    places = {name: len(header) + start for name, start in starts.items()}
    return _Shard(path, header, places, len(header) + position)


def _aligned(tensors: list[TensorPlan]) -> bool:
    position = 0
    for tensor in tensors:
        if position * 8 % DTYPE_BITS[tensor.dtype]:
            return False
        position += tensor.nbytes
    return True


@contextmanager
def failures(folder: Path) -> Iterator[None]:
    """Convert an OSError while a file in `folder` is written to an error for the user.

    Raises:
        DiskFull, OutputProblem: in place of the OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFull(
                f"The volume of {folder} is full.", "Free some disk space, or choose a folder on another volume."
            ) from error
        hint = "Check that the folder exists and is writable."
        if error.errno == errno.EFBIG:
            hint = "The volume does not support files of that size; choose a folder on another volume."
        raise OutputProblem(f"{folder} cannot be written: {error.strerror}.", hint) from error


def reserve(stream: BinaryIO, size: int) -> None:
    """Set the length of the file, and allocate its disk space if the system supports that."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(stream.fileno(), 0, size)
            return
        except OSError as error:
            # Some file systems cannot allocate in advance; they only get the length.
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
    stream.truncate(size)


def write_at(stream: BinaryIO, position: int, data: memoryview) -> None:
    """Write `data` at byte `position`, and retry from its start after temporary failures.

    Raises:
        OSError: all attempts failed.
    """

    def write() -> None:
        stream.seek(position)
        write_all(stream, data)

    with_retries(write)


def write_all(stream: BinaryIO, data: memoryview) -> None:
    """Write all of `data` in pieces: unbuffered writes may be partial, and some systems limit them to 2 GB."""
    position = 0
    while position < data.nbytes:
        position += stream.write(data[position : position + _CHUNK])
