"""The tensor table of a checkpoint, read from safetensors headers alone.

Knows the file format (https://huggingface.co/docs/safetensors: eight bytes of header length, a JSON header, one
byte buffer without holes) and the index of a sharded checkpoint. Knows nothing of models, reads no weight and
believes nothing: whatever a header claims is held against the size of the file before anything is allocated.
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
"""Real headers are far below it; the safetensors library takes 100 MB, which would be gigabytes of Python objects."""

MAX_NAME_BYTES: Final = 255
"""Of a file; what file systems take."""

SINGLE_FILE: Final = "model.safetensors"
INDEX_FILE: Final = "model.safetensors.index.json"

DTYPE_BITS: Final[dict[str, int]] = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "BF16": 16, "F16": 16, "F32": 32, "F64": 64, "C64": 64,
}  # fmt: skip
"""Bits of one element for every dtype code that the format knows."""

_AGAIN = "Fetch the file again."
_PIECE: Final = 1 << 22
_PART: Final = re.compile(r"-(\d{1,5})-of-(\d{1,5})\.safetensors\Z")
_BESIDE: Final = ("adapter_model", "adapter.", "consolidated", "optimizer", "training_args")
"""What files are called that lie beside a model's own weights."""


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a checkpoint.

    Attributes:
        name: as the checkpoint has it.
        dtype: safetensors code, such as `BF16`.
        shape: lengths of the dimensions; () for a scalar.
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
    """The tensors of one safetensors file, in the order of their bytes.

    Raises:
        CorruptFile: the file is cut short, a stand-in for another, or its header does not describe it exactly.
    """
    check_content(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            length = header_length(stream.read(8), size, path.name)
            text = stream.read(length)
    except OSError as error:
        raise CorruptFile(f"{path} cannot be read: {error.strerror}.", "Check the path and its rights.") from error
    return parse_header(text, size, path.name)


def header_length(first: bytes, size: int, label: str) -> int:
    """Bytes of the JSON header, from the first eight bytes of a file of `size` bytes.

    Raises:
        CorruptFile: the claim cannot be true for a file of that size.
    """
    if len(first) < 8:
        raise CorruptFile(f"{label} is too short to be a safetensors file.", _AGAIN)
    length = int.from_bytes(first, "little")
    if length > MAX_HEADER_BYTES or length > size - 8:
        raise CorruptFile(f"{label} claims a header of {length} bytes and has {size} bytes in all.", _AGAIN)
    if length < 2:
        raise CorruptFile(f"{label} has no safetensors header.", _AGAIN)
    return length


def parse_header(text: bytes, size: int, label: str) -> dict[str, TensorInfo]:
    """The tensors that a JSON header describes, for a file called `label` of `size` bytes.

    Raises:
        CorruptFile: the header is not such a description, or does not cover the file byte for byte.
    """
    table = _json_object(text, label)
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(item, str) for item in metadata.values()):
        raise CorruptFile(f"The header of {label} has metadata that is no table of texts.", _AGAIN)
    offset = 8 + len(text)
    found = [_tensor(name, entry, offset, size, label) for name, entry in table.items()]
    found.sort(key=lambda info: (info.start, info.end))
    position = offset
    for info in found:
        if info.start != position:
            problem = "overlaps the one before it" if info.start < position else "leaves a hole before it"
            raise CorruptFile(f"In {label}, the tensor {short(info.name)} {problem}.", _AGAIN)
        position = info.end
    if position != size:
        raise CorruptFile(f"{label} has {size} bytes where its header describes {position}.", _AGAIN)
    return {info.name: info for info in found}


def read_folder(folder: Path) -> dict[str, TensorInfo]:
    """Return the tensors of a checkpoint folder: of `model.safetensors`, of an index and its shards, or of all shards.

    As in transformers, all tensors of the shards count, listed in the index or not, and what an index lists beyond them
    (often heads for further tokens) is for whoever needs it to miss.

    Raises:
        ModelNotFound: the folder holds no safetensors file.
        CorruptFile: a file is torn or missing, or two files have different values for one tensor.
    """
    if (folder / SINGLE_FILE).is_file():
        return read_header(folder / SINGLE_FILE)
    if (folder / INDEX_FILE).is_file():
        index = index_shards(folder)
        return merge_tables(_shards(folder, index), lambda one, two: equal_bytes(folder, one, two), index)
    files = weight_files(path.name for path in folder.glob("*.safetensors") if path.is_file())
    if not files:
        raise ModelNotFound(f"{folder} holds no safetensors file.", "Choose a folder with the weights as safetensors.")
    _check_complete(files)
    return merge_tables([read_header(folder / name) for name in files], lambda one, two: equal_bytes(folder, one, two))


def weight_files(names: Iterable[str]) -> list[str]:
    """Return those of the safetensors files of a folder without an index that hold the model, sorted.

    Numbered parts come before all others; an adapter, optimizer states and Mistral's own copy of the weights
    (`consolidated`) lie beside a model and are not part of it.
    """
    found = sorted(name for name in names if name.endswith(".safetensors") and not name.startswith(_BESIDE))
    return [name for name in found if _PART.search(name)] or found


def merge_tables(
    tables: Sequence[Mapping[str, TensorInfo]],
    equal: Callable[[TensorInfo, TensorInfo], bool],
    index: Mapping[str, str] | None = None,
) -> dict[str, TensorInfo]:
    """Return the tensors of all files of a checkpoint as one table.

    Some checkpoints replace tensors by those of a later file, to which the index leads (JustVugg/colibri#1479).

    Args:
        tables: of the files, in their order.
        equal: whether two tensors of one name have the same values.
        index: tensor name -> file.

    Raises:
        CorruptFile: a tensor lies in two files with different values, and the last, which transformers takes, is not
            the one that the index lists, which others take.
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
    """Whether two tensors have the same type, shape and bytes."""
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
        raise CorruptFile(f"{folder} cannot be read: {error.strerror}.", "Check the path and its rights.") from error
    return True


def index_shards(folder: Path) -> dict[str, str]:
    """Return tensor name -> shard file, as the folder's index says.

    Raises:
        CorruptFile: the index is not one, or names a file outside the folder.
    """
    value = read_json(folder / INDEX_FILE)
    entries = value.get("weight_map") if isinstance(value, dict) else None
    if not isinstance(entries, dict) or not entries:
        raise CorruptFile(f"{INDEX_FILE} has no table of tensors.", _AGAIN)
    for shard in entries.values():
        # The index comes from a stranger: a shard is a plain name beside it, never a path to somewhere else.
        plain = isinstance(shard, str) and shard.endswith(".safetensors") and not any(c in shard for c in "/\\:\0")
        if not plain or len(shard.encode("utf-8", "replace")) > MAX_NAME_BYTES:
            raise CorruptFile(f"{INDEX_FILE} names {short(str(shard))}, which is not a file beside it.", _AGAIN)
    return entries


def _shards(folder: Path, index: Mapping[str, str]) -> list[dict[str, TensorInfo]]:
    """The tables of the shards of an index; one may be missing if others hold all that is listed for it."""
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
    """Refuse numbered parts (`model-00002-of-00003`) of which one is missing."""
    parts = {int(found[1]): int(found[2]) for name in files if (found := _PART.search(name))}
    lost = next((number for number in range(1, max(parts.values(), default=0) + 1) if number not in parts), 0)
    if lost and parts:
        total = max(parts.values())
        raise CorruptFile(f"Part {lost} of {total} of the weights is missing.", "Fetch that file, and the index.")


def _json_object(text: bytes, label: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            raise ValueError("duplicate key")
        return value

    def refused(constant: str) -> Any:
        raise ValueError(f"{constant} is no JSON")

    if text[:1] != b"{":
        raise CorruptFile(f"{label} does not begin with a safetensors header.", _AGAIN)
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=unique, parse_constant=refused)
        if b"\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")  # an escape may name half a character
    except (ValueError, RecursionError) as error:
        reason = "a key twice" if "duplicate key" in str(error) else "no valid JSON"
        raise CorruptFile(f"The header of {label} has {reason}.", _AGAIN) from error
    if not isinstance(value, dict):
        raise CorruptFile(f"The header of {label} is not a JSON object.", _AGAIN)
    return value


def _tensor(name: str, entry: Any, offset: int, size: int, label: str) -> TensorInfo:
    """One entry of the header, checked by itself; `offset` is where the byte buffer begins."""
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
        raise CorruptFile(f"{label} is cut short: {short(name)} should end at byte {end} of {size}.", _AGAIN)
    if _bits(shape, DTYPE_BITS[dtype], limit=8 * size) != 8 * (end - start):
        raise _wrong(name, label)
    return TensorInfo(name, dtype, tuple(shape), label, start, end)


def _wrong(name: str, label: str) -> CorruptFile:
    return CorruptFile(f"In {label}, the header's entry for {short(name)} cannot be true.", _AGAIN)


def _naturals(value: Any) -> TypeGuard[list[int]]:
    # Python's bool is an int; and a number past 64 bits has no business in an offset.
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 63 for item in value)


def _bits(shape: list[int], bits: int, limit: int) -> int:
    """Bits of a tensor, or anything above `limit` as soon as it is passed: a long product of lies costs no time."""
    if 0 in shape:
        return 0
    for length in shape:
        bits *= length
        if bits > limit:
            return limit + 1
    return bits


def short(text: str) -> str:
    """A stranger's text, fit for one line of a message."""
    clean = text.encode("ascii", "backslashreplace").decode("ascii")
    clean = "".join(c if c.isprintable() else "?" for c in clean)
    return clean if len(clean) <= 80 else clean[:77] + "..."
