"""The tensor table of a checkpoint, read from safetensors headers.

A safetensors file (https://huggingface.co/docs/safetensors) consists of 8 bytes with the header length, a JSON header
and a byte buffer without gaps; a sharded checkpoint has an index file as well. Headers are not trusted: every value is
checked against the size of the file before memory is allocated. No weights are read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeGuard

from core.errors import CorruptFile, ModelNotFound
from core.files import check_content, read_json

MAX_HEADER_BYTES: Final = 32 << 20
"""Limit far above real headers. The safetensors library accepts 100 MB, which would be gigabytes of Python objects."""

MAX_NAME_BYTES: Final = 255
"""Length limit of a file name in common file systems."""

SINGLE_FILE: Final = "model.safetensors"
INDEX_FILE: Final = "model.safetensors.index.json"

DTYPE_BITS: Final[dict[str, int]] = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "BF16": 16, "F16": 16, "F32": 32, "F64": 64, "C64": 64,
}  # fmt: skip
"""Bits per element of every dtype code of the format."""

_AGAIN = "Download the file again."
_PIECE: Final = 1 << 22
_PART: Final = re.compile(r"-(\d{1,5})-of-(\d{1,5})\.safetensors\Z")
_BESIDE: Final = ("adapter_model", "adapter.", "consolidated", "optimizer", "training_args")
"""Name prefixes of safetensors files in a model folder that are not part of the model."""


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a checkpoint.

    Attributes:
        name: as in the checkpoint.
        dtype: safetensors dtype code, such as `BF16`.
        shape: sizes of the dimensions; () for a scalar.
        file: path of its file, relative to the folder.
        start, end: absolute byte range in that file.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    start: int
    end: int

    @property
    def nbytes(self) -> int:
        return self.end - self.start

    @property
    def numel(self) -> int:
        """Number of elements."""
        count = 1
        for length in self.shape:
            count *= length
        return count


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Return the tensors of one safetensors file, in the order of their bytes.

    Raises:
        CorruptFile: the file is truncated, a Git LFS pointer or a web page, or its header does not match its size.
    """
    check_content(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            length = header_length(stream.read(8), size, path.name)
            text = stream.read(length)
    except OSError as error:
        raise CorruptFile(f"{path} cannot be read: {error.strerror}.", "Check the path and its permissions.") from error
    return parse_header(text, size, path.name)


def header_length(first: bytes, size: int, label: str) -> int:
    """Return the length of the JSON header in bytes, from the first 8 bytes of a file of `size` bytes.

    Raises:
        CorruptFile: the length is invalid for a file of that size.
    """
    if len(first) < 8:
        raise CorruptFile(f"{label} is too short to be a safetensors file.", _AGAIN)
    length = int.from_bytes(first, "little")
    if length > MAX_HEADER_BYTES or length > size - 8:
        raise CorruptFile(f"{label} declares a header of {length} bytes but has only {size} bytes.", _AGAIN)
    if length < 2:
        raise CorruptFile(f"{label} has no safetensors header.", _AGAIN)
    return length


def parse_header(text: bytes, size: int, label: str) -> dict[str, TensorInfo]:
    """Return the tensors of a JSON header.

    Args:
        text: the JSON header, without the 8 bytes before it.
        size: bytes of the whole file.
        label: name of the file, for messages and `TensorInfo.file`.

    Raises:
        CorruptFile: the header is invalid, or its tensors do not cover the byte buffer exactly.
    """
    table = _json_object(text, label)
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(item, str) for item in metadata.values()):
        raise CorruptFile(f"The metadata in the header of {label} are not a table of strings.", _AGAIN)
    offset = 8 + len(text)
    found = [_tensor(name, entry, offset, size, label) for name, entry in table.items()]
    found.sort(key=lambda info: (info.start, info.end))
    position = offset
    for info in found:
        if info.start != position:
            problem = "overlaps the previous one" if info.start < position else "leaves a gap before it"
            raise CorruptFile(f"In {label}, the tensor {short(info.name)} {problem}.", _AGAIN)
        position = info.end
    if position != size:
        raise CorruptFile(f"{label} has {size} bytes, but its header describes {position}.", _AGAIN)
    return {info.name: info for info in found}


def read_folder(folder: Path) -> dict[str, TensorInfo]:
    """Return the tensors of a checkpoint folder: of `model.safetensors`, of the shards in an index, or of all shards.

    As in transformers, all tensors of the shards are included, even if the index does not list them. Tensors that only
    the index lists (often those of MTP modules) are not an error.

    Raises:
        ModelNotFound: the folder contains no safetensors file.
        CorruptFile: a file is damaged or missing, or two files have different values for one tensor.
    """
    if (folder / SINGLE_FILE).is_file():
        return read_header(folder / SINGLE_FILE)
    if (folder / INDEX_FILE).is_file():
        index = index_shards(folder)
        return merge_tables(_shards(folder, index), lambda one, two: equal_bytes(folder, one, two), index)
    files = weight_files(path.name for path in folder.glob("*.safetensors") if path.is_file())
    if not files:
        raise ModelNotFound(f"{folder} contains no safetensors file.", "Choose a folder with safetensors weights.")
    _check_complete(files)
    return merge_tables([read_header(folder / name) for name in files], lambda one, two: equal_bytes(folder, one, two))


def weight_files(names: Iterable[str]) -> list[str]:
    """Return the sorted names of the safetensors files that contain the model, for a folder without an index.

    If there are numbered shards, only these count. Adapters, optimizer states and the copy of the weights in Mistral's
    own layout (`consolidated`) are not part of the model.
    """
    found = sorted(name for name in names if name.endswith(".safetensors") and not name.startswith(_BESIDE))
    return [name for name in found if _PART.search(name)] or found


def merge_tables(
    tables: Sequence[Mapping[str, TensorInfo]],
    equal: Callable[[TensorInfo, TensorInfo], bool],
    index: Mapping[str, str] | None = None,
) -> dict[str, TensorInfo]:
    """Merge the tensor tables of the files of a checkpoint.

    Some checkpoints replace tensors by those of a later file, which the index then lists (JustVugg/colibri#1479).

    Args:
        tables: tensor tables of the files, in their order.
        equal: returns whether two tensors of the same name have the same values.
        index: tensor name -> file.

    Raises:
        CorruptFile: two files have different values for a tensor, and the index does not list the last of them. In
            that case transformers, which uses the last file, and programs that follow the index would disagree.
    """
    merged: dict[str, TensorInfo] = {}
    for table in tables:
        for name, info in table.items():
            known = merged.setdefault(name, info)
            if known is not info and not equal(known, info):
                if index is not None and index.get(name) == info.file:
                    merged[name] = info
                    continue
                raise CorruptFile(
                    f"The tensor {short(name)} is in both {known.file} and {info.file}, with different values.",
                    "Keep only one set of weights in the folder.",
                )
    return merged


def equal_bytes(folder: Path, one: TensorInfo, two: TensorInfo) -> bool:
    """Return whether two tensors have the same dtype, shape and bytes."""
    if (one.dtype, one.shape) != (two.dtype, two.shape):
        return False
    try:
        with (folder / one.file).open("rb") as first, (folder / two.file).open("rb") as second:
            first.seek(one.start)
            second.seek(two.start)
            for start in range(0, one.nbytes, _PIECE):
                count = min(_PIECE, one.nbytes - start)
                if first.read(count) != second.read(count):
                    return False
    except OSError as error:
        raise CorruptFile(
            f"{folder} cannot be read: {error.strerror}.", "Check the path and its permissions."
        ) from error
    return True


def index_shards(folder: Path) -> dict[str, str]:
    """Return tensor name -> shard file from the index of a folder.

    Raises:
        CorruptFile: the index is invalid, or lists a file outside the folder.
    """
    value = read_json(folder / INDEX_FILE)
    entries = value.get("weight_map") if isinstance(value, dict) else None
    if not isinstance(entries, dict) or not entries:
        raise CorruptFile(f"{INDEX_FILE} has no table of tensors.", _AGAIN)
    for shard in entries.values():
        # The index is untrusted: a shard must be a plain file name in the same folder, not a path.
        plain = isinstance(shard, str) and shard.endswith(".safetensors") and not any(c in shard for c in "/\\:\0")
        if not plain or len(shard.encode("utf-8", "replace")) > MAX_NAME_BYTES:
            raise CorruptFile(f"{INDEX_FILE} lists {short(str(shard))}, which is not a file in its folder.", _AGAIN)
    return entries


def _shards(folder: Path, index: Mapping[str, str]) -> list[dict[str, TensorInfo]]:
    """Return the tensor tables of the shards of an index.

    A shard may be missing if other shards contain all tensors that the index lists for it.
    """
    names = sorted(set(index.values()))
    missing = [name for name in names if not (folder / name).is_file()]
    tables = [read_header(folder / name) for name in names if name not in missing]
    held = set().union(*tables)
    for name in missing:
        if not held.issuperset(tensor for tensor, shard in index.items() if shard == name):
            problem = "a broken symbolic link" if (folder / name).is_symlink() else "which is missing"
            raise CorruptFile(f"{INDEX_FILE} lists {short(name)}, {problem}.", "Download that file.")
    return tables


def _check_complete(files: list[str]) -> None:
    """Raise CorruptFile if one of the numbered shards (`model-00002-of-00003`) is missing."""
    parts = {int(found[1]): int(found[2]) for name in files if (found := _PART.search(name))}
    lost = next((number for number in range(1, max(parts.values(), default=0) + 1) if number not in parts), 0)
    if lost and parts:
        total = max(parts.values())
        raise CorruptFile(f"Part {lost} of {total} of the weights is missing.", "Download that file and the index.")


def _json_object(text: bytes, label: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            raise ValueError("duplicate key")
        return value

    def reject(constant: str) -> Any:
        raise ValueError(f"{constant} is not valid JSON")

    if text[:1] != b"{":
        raise CorruptFile(f"{label} does not begin with a safetensors header.", _AGAIN)
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=unique, parse_constant=reject)
        if b"\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")  # an escape may be a lone surrogate
    except (ValueError, RecursionError) as error:
        reason = "has a duplicate key" if "duplicate key" in str(error) else "is not valid JSON"
        raise CorruptFile(f"The header of {label} {reason}.", _AGAIN) from error
    if not isinstance(value, dict):
        raise CorruptFile(f"The header of {label} is not a JSON object.", _AGAIN)
    return value


def _tensor(name: str, entry: Any, offset: int, size: int, label: str) -> TensorInfo:
    """Parse and check one entry of the header; `offset` is the position of the byte buffer in the file."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise _wrong(name, label) from None
    if not isinstance(entry, dict):
        raise _wrong(name, label)
    dtype, shape, span = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise CorruptFile(f"In {label}, {short(name)} has the unknown dtype {short(str(dtype))}.", _AGAIN)
    if not _naturals(shape) or not _naturals(span) or len(span) != 2:
        raise _wrong(name, label)
    start, end = offset + span[0], offset + span[1]
    if start > end or end > size:
        raise CorruptFile(f"{label} is truncated: {short(name)} ends at byte {end} of {size}.", _AGAIN)
    if _bits(shape, DTYPE_BITS[dtype], limit=8 * size) != 8 * (end - start):
        raise _wrong(name, label)
    return TensorInfo(name, dtype, tuple(shape), label, start, end)


def _wrong(name: str, label: str) -> CorruptFile:
    return CorruptFile(f"In {label}, the header entry of {short(name)} is invalid.", _AGAIN)


def _naturals(value: Any) -> TypeGuard[list[int]]:
    # bool is a subclass of int in Python, and the format has 64-bit numbers.
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 63 for item in value)


def _bits(shape: list[int], bits: int, limit: int) -> int:
    """Return the bits of a tensor, or a number above `limit` as soon as it is exceeded.

    The early exit keeps products of many huge dimensions from taking a long time.
    """
    if 0 in shape:
        return 0
    for length in shape:
        bits *= length
        if bits > limit:
            return limit + 1
    return bits


def short(text: str) -> str:
    """Return untrusted text in a form that is safe for one line of a message: printable ASCII, 80 characters."""
    clean = text.encode("ascii", "backslashreplace").decode("ascii")
    clean = "".join(c if c.isprintable() else "?" for c in clean)
    return clean if len(clean) <= 80 else clean[:77] + "..."
