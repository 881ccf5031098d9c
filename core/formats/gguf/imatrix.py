"""Importance matrices of llama.cpp: sums of squares of the inputs of each matrix of a model.

A GGUF file of `llama-imatrix` has, for a tensor NAME of the model, `NAME.in_sum2` [matrices, in] with the sums of
squares of its inputs, and `NAME.counts` [matrices, 1] with the number of tokens (tools/imatrix/imatrix.cpp); several
matrices are experts. The older format (`.dat`) is a list of names, numbers of calls, and mean squares times these.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from gguf.constants import GGUF_MAGIC, GGUFValueType
from torch import Tensor

from core.errors import BadInput, CorruptFile
from core.formats.gguf.file import Entry, GgufWriter, TensorSlot
from core.formats.gguf.tensor_map import TensorMap
from core.formats.gguf.values import values
from core.model.gguf_header import read_gguf_header

_SUMS: Final = ".in_sum2"
_COUNTS: Final = ".counts"
_HINT: Final = "Make one with --save-imatrix, or with llama.cpp's llama-imatrix."
_MOST_ENTRIES: Final = 1 << 20
_LONGEST_NAME: Final = 1 << 12


@dataclass(frozen=True)
class InputSums:
    """The inputs of one matrix over a text.

    Attributes:
        squares: float32 [in], sums of squares.
        tokens: number of tokens.
    """

    squares: Tensor
    tokens: int


def read_imatrix(path: Path) -> dict[str, Tensor]:
    """Return the mean squares of the inputs of tensors by their names in a GGUF file, float32 [matrices, in].

    Matrices without inputs, such as experts that no token used, have the mean of the others; tensors without any
    inputs are left out.

    Raises:
        BadInput: the file is missing or no importance matrix.
        CorruptFile: the file is damaged.
    """
    if not path.is_file():
        raise BadInput(f"There is no importance matrix {path}.", _HINT)
    try:
        with path.open("rb") as stream:
            magic = stream.read(4)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}.", "Check its permissions.") from error
    found = _read_gguf(path) if magic == struct.pack("<I", GGUF_MAGIC) else _read_legacy(path)
    for name, means in found.items():
        if not bool(torch.isfinite(means).all()) or bool((means < 0).any()):
            raise CorruptFile(
                f"{path.name} has values of {name[:80]!r} that are negative or not finite.", "Make the file again."
            )
    if not found:
        raise BadInput(f"{path.name} has no values of any tensor.", _HINT)
    return found


def _read_gguf(path: Path) -> dict[str, Tensor]:
    header = read_gguf_header(path)
    found = {}
    for name, tensor in header.tensors.items():
        if not name.endswith(_SUMS):
            continue
        stem = name.removesuffix(_SUMS)
        counted = header.tensors.get(stem + _COUNTS)
        sums = torch.from_numpy(values(tensor)).view(-1, tensor.shape[-1])
        counts = None if counted is None else torch.from_numpy(values(counted)).view(-1)
        if counts is None or len(counts) != len(sums):
            raise CorruptFile(f"{path.name} has no counts for {stem[:80]!r}.", "Make the file again.")
        if bool((counts > 0).any()):
            found[stem] = _means(sums, counts)
    if not found:
        raise BadInput(f"{path.name} is a GGUF file, but no importance matrix.", _HINT)
    return found


def _means(sums: Tensor, counts: Tensor) -> Tensor:
    used = counts > 0
    means = sums / counts.clamp(min=1).unsqueeze(-1)
    return torch.where(used.unsqueeze(-1), means, sums[used].sum(0) / counts[used].sum())


def _read_legacy(path: Path) -> dict[str, Tensor]:
    """Read the format that llama.cpp wrote before GGUF: all matrices of a tensor are one list of values."""
    raw = path.read_bytes()
    wrong = BadInput(f"{path.name} is not an importance matrix of llama.cpp.", _HINT)
    position = 0

    def number() -> int:
        nonlocal position
        if position + 4 > len(raw):
            raise wrong
        position += 4
        return int(struct.unpack_from("<i", raw, position - 4)[0])

    found = {}
    entries = number()
    if not 0 < entries <= _MOST_ENTRIES:
        raise wrong
    for _ in range(entries):
        length = number()
        if not 0 < length <= _LONGEST_NAME or position + length > len(raw):
            raise wrong
        try:
            name = raw[position : position + length].decode()
        except UnicodeDecodeError:
            raise wrong from None
        position += length
        calls, count = number(), number()
        if count < 1 or position + 4 * count > len(raw):
            raise wrong
        sums = torch.from_numpy(np.frombuffer(raw, "<f4", count, position).astype(np.float32))
        position += 4 * count
        found[name] = (sums / max(1, calls)).view(1, -1)
    return found


def importance_of(found: Mapping[str, Tensor], tensors: TensorMap, label: str) -> dict[str, Tensor]:
    """Return the mean squares of the inputs of linear layers by their names in the checkpoint, float32 [in].

    Args:
        found: by name in a GGUF file, as `read_imatrix` returns them.
        tensors: of the model.
        label: name of the importance matrix in messages.

    Raises:
        BadInput: the importance matrix is that of another model.
    """
    named = {}
    for item in tensors.mapped:
        means = found.get(item.name)
        if means is None or not item.linear or not item.is_matrix:
            continue
        if tuple(means.shape) != (1, item.shape[1]):
            raise BadInput(
                f"{label} belongs to another model: it has {means.numel()} values for {item.name}, "
                f"which has {item.shape[1]} inputs.",
                "Use the importance matrix of this model.",
            )
        named[item.linear] = means[0]
    if not named:
        raise BadInput(f"{label} has no layer of this model.", "Use the importance matrix of this model.")
    return named


def write_imatrix(
    path: Path, sums: Mapping[str, InputSums], tensors: TensorMap, dataset: str, samples: int, seqlen: int
) -> None:
    """Write an importance matrix as a GGUF file.

    Args:
        path: of the file, which must not exist.
        sums: inputs of linear layers by their names in the checkpoint.
        tensors: of the model.
        dataset: name of the calibration text.
        samples, seqlen: number of samples, and their length in tokens; chunks in the terms of llama.cpp.

    Raises:
        DiskFull, OutputProblem: the file cannot be written.
    """
    placed = [(item.name, sums[item.linear]) for item in tensors.mapped if item.linear in sums]
    entries = [
        Entry.text("general.type", "imatrix"),
        Entry.list_of("imatrix.datasets", GGUFValueType.STRING, [dataset]),
        Entry.count("imatrix.chunk_count", samples),
        Entry.count("imatrix.chunk_size", seqlen),
    ]
    slots = []
    for name, found in placed:
        slots += [TensorSlot(name + _SUMS, "f32", (1, len(found.squares))), TensorSlot(name + _COUNTS, "f32", (1, 1))]
    with GgufWriter(path, entries, slots) as writer:
        for name, found in placed:
            writer.write(name + _SUMS, found.squares.float().cpu())
            writer.write(name + _COUNTS, torch.tensor([float(found.tokens)]))
