"""The header of a GGUF file: its metadata and its tensor table, validated against the size of the file.

The format is specified in https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The reader of gguf-py does not
check counts and would loop over 2^60 elements of an empty file. Files are therefore passed to it, or to transformers,
only after this module has parsed the whole header with bounds checks.
"""

from __future__ import annotations

import hashlib
import mmap
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from core.errors import CorruptFile, UnsupportedModel
from core.files import check_content
from core.model.parts import parts_of, whole_name

MAGIC: Final = b"GGUF"
_SCALARS: Final = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_LENGTH: Final = struct.Struct("<Q").unpack_from
_MAX_DIMS = 4
_MAX_ALIGNMENT = 1 << 20

_MAX_KEYS, _MAX_TENSORS, _MAX_STRINGS = 1 << 16, 1 << 17, 1 << 22
"""Limits far above any real file (about 100, 2000 and 800,000). Without them, parsing a header of many tiny entries
would take minutes and 20 times the size of the file in memory."""

_KEPT_TEXTS = 1 << 8
"""Length limit of arrays of strings that are kept, for descriptive metadata such as tags."""

_KEPT_NUMBERS = 1 << 12
"""Length limit of arrays of numbers that are kept; longer ones are scores and types of tokens."""

_SPLIT: Final = "split.count"
_AGAIN = "Download the file again."


@dataclass(frozen=True)
class GgufTensor:
    """One tensor of a GGUF file.

    Attributes:
        path: of its file.
        name: as in the file.
        shape: in the order of torch, rows first; the reverse of the order in the file.
        kind: its block type.
        start, nbytes: absolute position of its data in the file, and their length.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    start: int
    nbytes: int


@dataclass(frozen=True)
class StringArray:
    """Number of strings in an array that was not kept, and length of the longest in bytes."""

    length: int
    longest: int = 0


@dataclass(frozen=True)
class NumberArray:
    """Number of elements of an array of numbers that was not kept."""

    length: int


@dataclass(frozen=True)
class GgufHeader:
    """The header of a GGUF file, or of all parts of one.

    Attributes:
        path: the file, or the first part of a split file, which has the metadata.
        metadata: scalars, strings, short lists, and `StringArray` or `NumberArray` for long lists.
        tensors: by name, from all parts.
        digest: SHA-256 of the header and the size of the file, or of these digests of all parts.
        parts: number of files.
        spans: positions in `path` where the entry of each key of the metadata begins and ends.
    """

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]
    digest: str
    parts: int = 1
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Name of the file in messages."""
        return self.path.name if self.parts == 1 else f"{whole_name(self.path.name)} ({self.parts} parts)"

    @property
    def architecture(self) -> str:
        """Value of `general.architecture`; "" if it is missing or not a string."""
        value = self.metadata.get("general.architecture")
        return value if isinstance(value, str) else ""


def read_gguf_header(path: Path) -> GgufHeader:
    """Parse and validate the header of a GGUF file, including the other parts of a split file.

    `path` may be any of the parts, named `NAME-00002-of-00003.gguf` as by llama.cpp's gguf-split.

    Raises:
        CorruptFile: the file is not GGUF, is truncated, has an invalid header, or a part is missing.
        UnsupportedModel: the version, byte order or a tensor type is not supported.
    """
    header = _read_one(path)
    count = header.metadata.get(_SPLIT)
    if type(count) is not int or count < 2:
        return header
    paths = parts_of(path)
    if len(paths) != count:
        raise CorruptFile(
            f"{path.name} is one of {count} parts of a split file, but its name does not contain the part number.",
            f"Rename the parts to NAME-00001-of-{count:05d}.gguf and so on.",
        )
    missing = next((part for part in paths if not part.is_file()), None)
    if missing is not None:
        raise CorruptFile(
            f"{missing.name} is missing: the file is split into {count} parts.", f"Put it in the same folder as {path}."
        )
    headers = [_read_one(part) for part in paths]
    tensors: dict[str, GgufTensor] = {}
    for number, part in enumerate(headers):
        if part.metadata.get("split.no") != number or part.metadata.get(_SPLIT) != count:
            raise CorruptFile(f"{part.path.name} is not part {number + 1} of {count} of a split file.", _AGAIN)
        twice = next((name for name in part.tensors if name in tensors), None)
        if twice is not None:
            raise CorruptFile(f"The tensor {twice[:80]!r} is in two parts of {path.name}.", _AGAIN)
        tensors |= part.tensors
    digest = hashlib.sha256("".join(part.digest for part in headers).encode()).hexdigest()
    return GgufHeader(paths[0], headers[0].metadata, tensors, digest, count, headers[0].spans)


def _read_one(path: Path) -> GgufHeader:
    check_content(path)
    try:
        with path.open("rb") as stream:
            if stream.read(4) != MAGIC:
                raise CorruptFile(f"{path.name} is not a GGUF file.", "Choose another file, or download it again.")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as blob:
                return _Walk(blob, path).header()
    except OSError as error:
        raise CorruptFile(f"{path} cannot be read: {error.strerror}.", "Check the path and its permissions.") from error


class _Walk:
    """A bounds-checked cursor in a memory-mapped file, which parses the header."""

    def __init__(self, blob: mmap.mmap, path: Path) -> None:
        self.blob = blob
        self.size = len(blob)
        self.path = path
        self.label = path.name
        self.position = 4
        self.strings = 0

    def header(self) -> GgufHeader:
        """Parse the whole header, starting behind the magic number."""
        version = self._number("<I")
        if version & 0xFFFF == 0:
            raise UnsupportedModel(f"{self.label} is a big-endian file.", "Use the little-endian version of the file.")
        if version not in (2, 3):
            hint = "Convert the model to GGUF version 3, or download the file again if it should have that version."
            raise UnsupportedModel(f"{self.label} is GGUF version {version}; versions 2 and 3 are supported.", hint)
        tensor_count, key_count = self._number("<Q"), self._number("<Q")
        self._room(tensor_count * 24 + key_count * 13)
        if tensor_count > _MAX_TENSORS or key_count > _MAX_KEYS:
            raise self._wrong(f"declares {tensor_count} tensors and {key_count} metadata entries")
        metadata: dict[str, Any] = {}
        spans: dict[str, tuple[int, int]] = {}
        for _ in range(key_count):
            begin, key = self.position, self._text()
            if key in metadata:
                raise self._wrong(f"has the key {key[:80]!r} twice")
            metadata[key] = self._value(self._number("<I"), keep=key.startswith("general."))
            spans[key] = (begin, self.position)
        entries = [self._tensor_entry() for _ in range(tensor_count)]
        digest = hashlib.sha256(self.blob[: self.position])
        digest.update(str(self.size).encode())
        return GgufHeader(self.path, metadata, self._place(entries, metadata), digest.hexdigest(), spans=spans)

    def _place(
        self, entries: list[tuple[str, tuple[int, ...], int, int]], metadata: dict[str, Any]
    ) -> dict[str, GgufTensor]:
        """Return the tensors with absolute offsets, after checking bounds, alignment and overlap."""
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 0 < alignment <= _MAX_ALIGNMENT or alignment & (alignment - 1):
            raise self._wrong(f"declares an alignment of {str(alignment)[:40]!r}")
        data = -(-self.position // alignment) * alignment
        tensors: dict[str, GgufTensor] = {}
        for name, shape, raw_kind, offset in entries:
            kind, nbytes = self._kind(name, shape, raw_kind)
            if name in tensors or offset % alignment:
                raise self._wrong(f"has an invalid entry for the tensor {name[:80]!r}")
            if data + offset + nbytes > self.size:
                raise CorruptFile(
                    f"{self.label} is truncated: it has {self.size} bytes, but its tensor {name[:80]!r} ends at byte "
                    f"{data + offset + nbytes}.",
                    _AGAIN,
                )
            tensors[name] = GgufTensor(self.path, name, shape, kind, data + offset, nbytes)
        position = data
        for tensor in sorted(tensors.values(), key=lambda tensor: tensor.start):
            if tensor.start < position:
                raise self._wrong(f"has a tensor {tensor.name[:80]!r} that overlaps another")
            position = tensor.start + tensor.nbytes
        return tensors

    def _kind(self, name: str, shape: tuple[int, ...], raw_kind: int) -> tuple[GGMLQuantizationType, int]:
        """Return the block type and the size in bytes of a tensor."""
        try:
            kind = GGMLQuantizationType(raw_kind)
            block, block_bytes = GGML_QUANT_SIZES[kind]
        except (ValueError, KeyError):
            raise UnsupportedModel(
                f"{self.label} stores {name[:80]!r} in the unknown tensor type {raw_kind}.", "Use another file."
            ) from None
        elements = 1
        for length in shape:
            elements *= length
            # The smallest type has about 1.6 bits per weight, so that 8 elements per byte never fit into the file.
            if elements > 8 * self.size:
                raise self._wrong(f"declares a tensor {name[:80]!r} that is larger than the file")
        if not shape or 0 in shape or shape[-1] % block:
            raise self._wrong(f"has an invalid shape for the tensor {name[:80]!r}")
        return kind, elements // block * block_bytes

    def _tensor_entry(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._text()
        dims = self._number("<I")
        if dims > _MAX_DIMS:
            raise self._wrong(f"declares {dims} dimensions for the tensor {name[:80]!r}")
        shape = tuple(reversed([self._number("<Q") for _ in range(dims)]))
        return name, shape, self._number("<I"), self._number("<Q")

    def _value(self, kind: int, *, keep: bool = False) -> Any:
        """Read the value of a metadata entry; `keep` returns a short array of strings as a list."""
        if kind in _SCALARS:
            return self._number(_SCALARS[kind])
        if kind == _STRING:
            return self._text()
        if kind != _ARRAY:
            raise self._wrong(f"has metadata of the unknown type {kind}")
        element, count = self._number("<I"), self._number("<Q")
        if element in _SCALARS:
            code = _SCALARS[element][1]
            width = struct.calcsize(f"<{code}")
            self._room(count * width)
            if count > _KEPT_NUMBERS:
                self.position += count * width
                return NumberArray(count)
            values = list(struct.unpack_from(f"<{count}{code}", self.blob, self.position))
            self.position += count * width
            return values
        if element != _STRING:
            raise self._wrong(f"has an array of the unknown type {element}")
        self._room(count * 8)
        self.strings += count
        if self.strings > _MAX_STRINGS:
            raise self._wrong(f"declares {self.strings} strings")
        if keep and count <= _KEPT_TEXTS:
            return [self._text() for _ in range(count)]
        return StringArray(count, self._skip_texts(count))

    def _skip_texts(self, count: int) -> int:
        """Skip `count` strings and return the length of the longest in bytes."""
        blob, position, last, longest = self.blob, self.position, self.size - 8, 0
        for _ in range(count):
            if position > last:
                self._room(self.size)
            length = _LENGTH(blob, position)[0]
            position += 8 + length
            longest = max(longest, length)
        self.position = min(position, self.size)
        self._room(position - self.position)
        return longest

    def _skip_text(self) -> int:
        """Skip a string and return its length in bytes."""
        length: int = self._number("<Q")
        self._room(length)
        self.position += length
        return length

    def _text(self) -> str:
        start = self.position + 8
        raw = self.blob[start : start + self._skip_text()]
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self._wrong("has text that is not UTF-8") from None

    def _number(self, code: str) -> Any:
        self._room(struct.calcsize(code))
        (value,) = struct.unpack_from(code, self.blob, self.position)
        self.position += struct.calcsize(code)
        return value

    def _room(self, count: int) -> None:
        """Raise CorruptFile unless `count` more bytes follow the current position."""
        if count > self.size - self.position:
            raise CorruptFile(f"{self.label} is truncated or damaged: its header extends past its end.", _AGAIN)

    def _wrong(self, problem: str) -> CorruptFile:
        return CorruptFile(f"{self.label} {problem}.", _AGAIN)
