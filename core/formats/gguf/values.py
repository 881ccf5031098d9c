"""Reading and dequantizing of the rows of a tensor in a GGUF file, with gguf-py.

Files are read without memory maps for the reason given in `core.model.weights`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import gguf
import numpy as np

from core.errors import CorruptFile, ModelNotFound, UnsupportedModel
from core.model.gguf_header import GgufTensor

CHUNK_ELEMENTS: Final = 1 << 22
"""Most weights dequantized at once, 16 MB in fp32: gguf-py makes several copies of its input."""

_Array = np.ndarray[Any, Any]
_PLAIN: Final[dict[str, str]] = {"F32": "<f4", "F16": "<f2"}


def rows_of(tensor: GgufTensor) -> int:
    """Return the number of rows of a tensor; a one-dimensional tensor is one row."""
    count = 1
    for length in tensor.shape[:-1]:
        count *= length
    return count


def read_rows(tensor: GgufTensor, start: int = 0, stop: int | None = None) -> _Array:
    """Return the stored bytes of rows `start` to `stop` (None: to the end), uint8 [rows, bytes of a row].

    Raises:
        CorruptFile: the file shrank since its header was read.
        ModelNotFound: it is gone.
    """
    rows = rows_of(tensor)
    width = tensor.nbytes // rows
    stop = rows if stop is None else stop
    raw = np.empty((stop - start, width), dtype=np.uint8)
    try:
        with tensor.path.open("rb", buffering=0) as stream:
            stream.seek(tensor.start + start * width)
            view, done = raw.reshape(-1).data, 0
            while done < raw.nbytes:
                count = stream.readinto(view[done:])
                if not count:
                    raise CorruptFile(
                        f"{tensor.path.name} ended inside the tensor {tensor.name}.", "Fetch the file again."
                    )
                done += count
    except OSError as error:
        raise ModelNotFound(
            f"{tensor.path} can no longer be read: {error.strerror}.",
            "Put the model back where it was, and start again.",
        ) from error
    return raw


def gather_rows(tensor: GgufTensor, index: _Array) -> _Array:
    """Return the stored bytes of single rows, uint8 [n, bytes of a row], without reading others.

    Raises:
        ModelNotFound: the file is gone.
    """
    rows = rows_of(tensor)
    try:
        mapped = np.memmap(tensor.path, np.uint8, "r", tensor.start, (rows, tensor.nbytes // rows))
    except (OSError, ValueError) as error:
        raise ModelNotFound(f"{tensor.path} can no longer be read.", "Put the model back, and start again.") from error
    return np.ascontiguousarray(mapped[index])


def decode_rows(raw: _Array, tensor: GgufTensor) -> _Array:
    """Return the values of stored rows, float32 [rows, columns], in new memory.

    Raises:
        UnsupportedModel: the tensor's type is one that gguf-py does not dequantize.
    """
    plain = _PLAIN.get(tensor.kind.name)
    if plain is not None:
        return raw.view(plain).astype(np.float32)
    try:
        # A damaged scale may be infinite; callers check the values.
        with np.errstate(all="ignore"):
            return np.array(gguf.dequantize(raw, tensor.kind), dtype=np.float32, order="C")
    except NotImplementedError as error:
        raise UnsupportedModel(
            f"Weights stored as {tensor.kind.name} are not read.", "Use a file with another type, such as Q8_0."
        ) from error


def raw_chunks(tensor: GgufTensor) -> Iterator[_Array]:
    """Yield all stored bytes in order, uint8 [rows, bytes of a row], some rows at a time."""
    step = max(1, CHUNK_ELEMENTS // tensor.shape[-1])
    rows = rows_of(tensor)
    for start in range(0, rows, step):
        yield read_rows(tensor, start, min(rows, start + step))


def row_chunks(tensor: GgufTensor) -> Iterator[_Array]:
    """Yield all values in order, float32 [rows, columns], some rows at a time."""
    return (decode_rows(raw, tensor) for raw in raw_chunks(tensor))


def values(tensor: GgufTensor) -> _Array:
    """Return all values, float32 in the shape of the tensor."""
    found = np.empty((rows_of(tensor), tensor.shape[-1]), dtype=np.float32)
    done = 0
    for chunk in row_chunks(tensor):
        found[done : done + len(chunk)] = chunk
        done += len(chunk)
    return found.reshape(tensor.shape)
