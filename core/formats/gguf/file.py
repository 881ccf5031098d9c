"""A writer of GGUF files whose tensors are known in advance and written in any order.

The header is written first and fixes the place of every tensor: missing disk space is detected before any work, and
only a piece of one tensor is in memory. The file is named `*.partial` until `close`.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, version 3, little-endian.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Final

import torch
from gguf.constants import GGUF_MAGIC, GGMLQuantizationType, GGUFValueType
from torch import Tensor

from core.errors import BitwrightError, DiskFull, OutputProblem
from core.files import free_bytes, sync_folder, with_retries
from core.formats.gguf.types import type_bytes
from core.model.writer import ClosedOrAborted, failures, reserve, write_at
from core.wording import human

_ALIGNMENT: Final = 32
_VERSION: Final = 3
_PARTIAL: Final = ".partial"
_CODES: Final = {
    GGUFValueType.UINT8: "B", GGUFValueType.INT8: "b", GGUFValueType.UINT16: "H", GGUFValueType.INT16: "h",
    GGUFValueType.UINT32: "I", GGUFValueType.INT32: "i", GGUFValueType.FLOAT32: "f", GGUFValueType.BOOL: "?",
    GGUFValueType.UINT64: "Q", GGUFValueType.INT64: "q", GGUFValueType.FLOAT64: "d",
}  # fmt: skip
DTYPES: Final = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Entry:
    """One key of the metadata and its value; `element` is the type of the values of a list."""

    key: str
    value: Any
    kind: GGUFValueType
    element: GGUFValueType | None = None

    @cached_property
    def packed(self) -> bytes:
        """The bytes in a file, cached because several formats may share a vocabulary."""
        return _pack(self)

    @classmethod
    def text(cls, key: str, value: str) -> Entry:
        return cls(key, value, GGUFValueType.STRING)

    @classmethod
    def count(cls, key: str, value: int) -> Entry:
        """Return an entry with an unsigned 32-bit integer."""
        return cls(key, value, GGUFValueType.UINT32)

    @classmethod
    def float(cls, key: str, value: float) -> Entry:
        """Return an entry with a 32-bit float."""
        return cls(key, value, GGUFValueType.FLOAT32)

    @classmethod
    def flag(cls, key: str, value: bool) -> Entry:
        return cls(key, value, GGUFValueType.BOOL)

    @classmethod
    def list_of(cls, key: str, element: GGUFValueType, values: Sequence[Any]) -> Entry:
        return cls(key, values, GGUFValueType.ARRAY, element)

    def under(self, architecture: str) -> Entry:
        """Return the entry with the architecture's name before its key."""
        return Entry(f"{architecture}.{self.key}", self.value, self.kind, self.element)


@dataclass(frozen=True)
class StoredEntry:
    """One key of the metadata of another file, with the bytes of its entry there."""

    key: str
    packed: bytes


@dataclass(frozen=True)
class TensorSlot:
    """One tensor of a file: its name, type (`f32`, `bf16`, `q4_k` and so on) and shape, rows first."""

    name: str
    type: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return type_bytes(self.type, self.shape)


class GgufWriter(ClosedOrAborted):
    """A writer of one GGUF file. Thread-safe.

    As a context manager it removes the file if the block fails, and closes it otherwise.

    Args:
        path: of the file; its folder exists and the file does not.
        metadata: in order, without duplicate keys.
        tensors: all tensors, in the order of the file, without duplicate names.

    Raises:
        DiskFull: the volume has too little room for all of it.
        OutputProblem: the folder cannot be written, or the file is there already.
    """

    def __init__(self, path: Path, metadata: Sequence[Entry | StoredEntry], tensors: Sequence[TensorSlot]) -> None:
        self.path = path
        self._slots = {slot.name: slot for slot in tensors}
        if len(self._slots) != len(tensors) or len({entry.key for entry in metadata}) != len(metadata):
            raise ValueError("a tensor or a key is duplicated")
        self._header, self._places, self.total_bytes = _file_layout(metadata, tensors)
        self._missing = dict.fromkeys(self._slots)
        self._lock = threading.Lock()
        self._stream: BinaryIO | None = None
        self._open()

    @property
    def missing(self) -> list[str]:
        """Names of the tensors that are not written yet, in the order of the file."""
        return list(self._missing)

    def write(self, name: str, data: Tensor | bytes | memoryview | Iterable[Tensor | bytes | memoryview]) -> None:
        """Write a tensor.

        Args:
            name: in the file.
            data: bytes (uint8) or a tensor of the type itself, on any device; or pieces of either in order, so that a
                tensor larger than memory can be written.

        Raises:
            ValueError: not planned, written before, of another dtype or length, or the writer is closed.
            DiskFull, OutputProblem: the file cannot take it.
        """
        if name not in self._missing:
            raise ValueError(f"{name} was written before" if name in self._slots else f"{name} is not planned")
        slot, done = self._slots[name], 0
        pieces = [data] if isinstance(data, Tensor | bytes | memoryview) else data
        for piece in pieces:
            view = self._bytes(slot, piece)
            if done + view.nbytes > slot.nbytes:
                raise ValueError(f"{name} has more than the planned {slot.nbytes} bytes")
            with self._lock, failures(self.path.parent):
                if self._stream is None:
                    raise ValueError("the writer is closed")
                write_at(self._stream, self._places[name] + done, view)
            done += view.nbytes
        if done != slot.nbytes:
            raise ValueError(f"{name} has {done} bytes, planned were {slot.nbytes}")
        del self._missing[name]

    def close(self) -> Path:
        """Flush the file to disk, rename it to its final name, and return its path.

        Raises:
            ValueError: tensors are missing.
            DiskFull, OutputProblem: the last bytes could not be written.
        """
        if self._missing:
            raise ValueError(f"{len(self._missing)} tensors were not written, such as {next(iter(self._missing))}")
        with failures(self.path.parent):
            if self._stream is not None:
                os.fsync(self._stream.fileno())
                self._stream.close()
                self._stream = None
                with_retries(lambda: self._partial.replace(self.path))
                sync_folder(self.path.parent)
        return self.path

    def abort(self) -> None:
        """Remove the file; does nothing after `close` or `leave`."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
            with suppress(OSError):
                self._partial.unlink(missing_ok=True)

    def leave(self) -> None:
        """Close the unfinished file and keep it under its temporary name."""
        if self._stream is not None:
            with suppress(OSError):
                self._stream.close()
            self._stream = None

    @property
    def _partial(self) -> Path:
        return self.path.with_name(self.path.name + _PARTIAL)

    def _bytes(self, slot: TensorSlot, piece: Tensor | bytes | memoryview) -> memoryview:
        if not isinstance(piece, Tensor):
            return memoryview(piece).cast("B")
        wanted = DTYPES.get(slot.type, torch.uint8)
        if piece.dtype not in (wanted, torch.uint8):
            raise ValueError(f"{slot.name} is {piece.dtype}, planned was {slot.type}")
        return memoryview(piece.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8).numpy().data)

    def _open(self) -> None:
        folder = self.path.parent
        if self.path.exists():
            raise OutputProblem(f"{self.path} exists already.", "Choose an empty folder.")
        try:
            with failures(folder):
                free = free_bytes(folder)
                if free < self.total_bytes:
                    raise DiskFull(
                        f"The output needs {human(self.total_bytes)} and {folder} has {human(free)}.",
                        "Free some room, or choose a folder on another volume.",
                    )
                self._stream = self._partial.open("wb", buffering=0)
                reserve(self._stream, self.total_bytes)
                write_at(self._stream, 0, memoryview(self._header))
        except BitwrightError:
            self.abort()
            raise


def header_bytes(metadata: Sequence[Entry | StoredEntry], tensors: Sequence[TensorSlot]) -> int:
    """Return the bytes of a file before its first tensor."""
    return len(_file_layout(metadata, tensors)[0])


def _file_layout(
    metadata: Sequence[Entry | StoredEntry], tensors: Sequence[TensorSlot]
) -> tuple[bytes, dict[str, int], int]:
    """Return the padded header, the absolute offset of each tensor, and the length of the file."""
    parts = [struct.pack("<IIQQ", GGUF_MAGIC, _VERSION, len(tensors), len(metadata))]
    parts += [entry.packed for entry in metadata]
    places = {}
    position = 0
    for slot in tensors:
        # GGUF lists the contiguous dimension first.
        dims = slot.shape[::-1]
        kind = GGMLQuantizationType[slot.type.upper()]
        parts.append(_text(slot.name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, position))
        places[slot.name] = position
        position += _padded(slot.nbytes)
    header = b"".join(parts)
    header += bytes(_padded(len(header)) - len(header))
    return header, {name: len(header) + place for name, place in places.items()}, len(header) + position


def _padded(length: int) -> int:
    return -(-length // _ALIGNMENT) * _ALIGNMENT


def _pack(entry: Entry) -> bytes:
    start = _text(entry.key) + struct.pack("<I", entry.kind)
    if entry.kind == GGUFValueType.STRING:
        return start + _text(entry.value)
    if entry.kind != GGUFValueType.ARRAY:
        return start + struct.pack(f"<{_CODES[entry.kind]}", entry.value)
    if entry.element is None:
        raise ValueError(f"{entry.key} is a list without an element type")
    start += struct.pack("<IQ", entry.element, len(entry.value))
    if entry.element == GGUFValueType.STRING:
        return start + b"".join(map(_text, entry.value))
    return start + struct.pack(f"<{len(entry.value)}{_CODES[entry.element]}", *entry.value)


def _text(value: str | bytes) -> bytes:
    raw = value if isinstance(value, bytes) else value.encode("utf-8")
    return struct.pack("<Q", len(raw)) + raw
