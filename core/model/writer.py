"""Writing a checkpoint whose tensors are known beforehand and come in any order.

All headers and lengths are fixed at the start: a volume that is too small is found out before any work, each tensor
goes straight to its place, and no more than one is ever in memory. Files are called `*.partial` until `close`, so
that nothing half done looks like a checkpoint. Knows the safetensors format and nothing of what the tensors mean.
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
from core.files import free_bytes, patiently, sync_folder, write_json
from core.model.headers import DTYPE_BITS, INDEX_FILE, SINGLE_FILE
from core.wording import human

MAX_SHARD_BYTES: Final = 5 * 10**9

TORCH_DTYPES: Final[dict[str, torch.dtype]] = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "U16": torch.uint16, "I16": torch.int16,
    "U32": torch.uint32, "I32": torch.int32, "U64": torch.uint64, "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64, "C64": torch.complex64,
}  # fmt: skip
"""safetensors dtype code -> torch dtype, where torch has one."""

_PARTIAL = ".partial"
_CHUNK = 1 << 24
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class TensorPlan:
    """One tensor of an output: its name, safetensors dtype code and shape."""

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
    """One file: `header` is all that comes before the data, `places` the absolute offset of each tensor."""

    path: Path
    header: bytes
    places: dict[str, int]
    size: int
    stream: BinaryIO | None = None

    @property
    def partial(self) -> Path:
        return self.path.with_name(self.path.name + _PARTIAL)


class ClosedOrAborted(ABC):
    """A writer whose `with` block ends in `close` if it went well, and in `abort` in any case."""

    @abstractmethod
    def close(self) -> object:
        """Give what was written its name."""

    @abstractmethod
    def abort(self) -> None:
        """Remove what was written; does nothing after `close` or `leave`."""

    @abstractmethod
    def leave(self) -> None:
        """Close the files and let them lie as they are, under their names of unfinished files."""

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
    """Writes `model.safetensors`, or shards and their index, into an existing folder.

    As a context manager it removes what it wrote if the block fails, and closes otherwise. One tensor at a time is
    written, whichever threads call.

    Args:
        folder: exists and holds no checkpoint.
        tensors: all that will be written, without a name twice.
        max_shard_bytes: a file takes no more bytes of tensors, unless one tensor alone has more.

    Raises:
        DiskFull: the volume has too little room for all of it.
        OutputProblem: the folder cannot be written, or a checkpoint is there already.
    """

    def __init__(self, folder: Path, tensors: Sequence[TensorPlan], max_shard_bytes: int = MAX_SHARD_BYTES) -> None:
        self._folder = folder
        self._plans = {tensor.name: tensor for tensor in tensors}
        if len(self._plans) != len(tensors):
            raise ValueError("a tensor is planned twice")
        self._shards = _lay_out(folder, tensors, max_shard_bytes)
        self._shard_of = {name: shard for shard in self._shards for name in shard.places}
        self._missing = dict.fromkeys(self._plans)
        self._lock = threading.Lock()
        self._open_all()

    @property
    def total_bytes(self) -> int:
        """Bytes of all weight files, headers included."""
        return sum(shard.size for shard in self._shards)

    @property
    def missing(self) -> list[str]:
        """Tensors that are not written yet, in the order of the plan."""
        return list(self._missing)

    def write(self, name: str, tensor: Tensor) -> None:
        """Put a tensor, on any device, to its place.

        Raises:
            ValueError: not planned, written before, or of another dtype or shape.
            DiskFull, OutputProblem: the file cannot take it.
        """
        plan = self._claim(name)
        if tensor.dtype != TORCH_DTYPES.get(plan.dtype) or tuple(tensor.shape) != plan.shape:
            raise ValueError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}, planned was {plan.dtype} {plan.shape}")
        flat = tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8)
        self._put(name, flat.numpy().data)

    def write_bytes(self, name: str, data: memoryview) -> None:
        """Put the bytes of a tensor, as safetensors has them (little-endian, row by row), to their place.

        Raises:
            ValueError: not planned, written before, or of another length.
            DiskFull, OutputProblem: the file cannot take it.
        """
        plan = self._claim(name)
        if data.nbytes != plan.nbytes:
            raise ValueError(f"{name} has {data.nbytes} bytes, planned were {plan.nbytes}")
        self._put(name, data.cast("B"))

    def write_pieces(self, name: str, pieces: Iterable[bytes]) -> None:
        """The same from pieces in order, so that a tensor larger than memory can be copied.

        Raises:
            ValueError: not planned, written before, or of another length in all.
            DiskFull, OutputProblem: the file cannot take it.
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
        """Make everything durable, give the files their names, and return them, the index last.

        Raises:
            ValueError: tensors are missing.
            DiskFull, OutputProblem: the last bytes could not be written.
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
                patiently(lambda: self._partial_index.replace(self._folder / INDEX_FILE))
                paths.append(self._folder / INDEX_FILE)
            sync_folder(self._folder)
        return paths

    def _name(self, shard: _Shard) -> None:
        patiently(lambda: shard.partial.replace(shard.path))

    def abort(self) -> None:
        """Remove what was written; does nothing after `close` or `leave`."""
        for shard in self._shards:
            if shard.stream is not None:
                shard.stream.close()
                shard.stream = None
                with suppress(OSError):
                    shard.partial.unlink(missing_ok=True)
        with suppress(OSError):
            self._partial_index.unlink(missing_ok=True)

    def leave(self) -> None:
        """Close the files and let them lie as they are, under their names of unfinished files."""
        for shard in self._shards:
            if shard.stream is not None:
                with suppress(OSError):
                    shard.stream.close()
                shard.stream = None

    def _claim(self, name: str) -> TensorPlan:
        if name not in self._missing:
            raise ValueError(f"{name} was written before" if name in self._plans else f"{name} is not planned")
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
                        f"The output needs {human(self.total_bytes)} and {self._folder} has {human(free)}.",
                        "Free some room, or choose a folder on another volume.",
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


def _lay_out(folder: Path, tensors: Sequence[TensorPlan], limit: int) -> list[_Shard]:
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
    # Readers map the file and want each element at a multiple of its size; widest first always gives that.
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
    """What the operating system says while a file in `folder` is written, in the user's words.

    Raises:
        DiskFull, OutputProblem: instead of OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFull(
                f"The volume of {folder} is full.", "Free some room, or choose a folder on another volume."
            ) from error
        hint = "Check that the folder exists and may be written."
        if error.errno == errno.EFBIG:
            hint = "The volume does not take files that large; choose one on another."
        raise OutputProblem(f"{folder} cannot be written: {error.strerror}.", hint) from error


def reserve(stream: BinaryIO, size: int) -> None:
    """Give the file its length, with room for it on the disk where the system can promise that."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(stream.fileno(), 0, size)
            return
        except OSError as error:
            # Some file systems cannot reserve; that is no reason to refuse them.
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
    stream.truncate(size)


def write_at(stream: BinaryIO, position: int, data: memoryview) -> None:
    """Write `data` from byte `position` on, and again from its start where that fails for a reason that may pass.

    Raises:
        OSError: it failed each time.
    """

    def write() -> None:
        stream.seek(position)
        write_all(stream, data)

    patiently(write)


def write_all(stream: BinaryIO, data: memoryview) -> None:
    """Unbuffered writes may be short, and some systems refuse more than 2 GB at once."""
    position = 0
    while position < data.nbytes:
        position += stream.write(data[position : position + _CHUNK])
