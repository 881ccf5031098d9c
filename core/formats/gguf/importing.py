"""Import of a GGUF file into a cached Hugging Face folder in bf16, or of its config and tokenizer alone.

Only one tensor is in memory at a time, and a folder gets its final name only when it is complete.
"""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import torch
from filelock import FileLock, Timeout
from gguf.constants import LlamaFileType

from core.control import ShouldStop, never
from core.errors import BitwrightError, Cancelled, DiskFull, OutputProblem
from core.events import Emit, Log
from core.files import free_bytes, read_json, sync_folder, write_json
from core.formats.gguf import tokenizer_import
from core.formats.gguf import values as gguf_values
from core.formats.gguf.model import GgufModel, open_gguf_model
from core.home import cache_home
from core.model.general import facts_in_header, write_facts
from core.model.gguf_header import GgufHeader, read_gguf_header
from core.model.headers import read_folder
from core.model.writer import CheckpointWriter, TensorPlan
from core.pace import PacedProgress
from core.wording import human

_VERSION: Final = 4
"""Part of the cache key: increase it when an import of the same file gives another result."""

_BIG: Final = ("token_embd.weight", "output.weight")
_GRACE_BYTES: Final = 64 << 20


def cache_folder() -> Path:
    """Return the folder of imports, which may be deleted while nothing runs; BITWRIGHT_HOME moves it."""
    return cache_home() / "imports"


def import_gguf(path: Path, emit: Emit, should_stop: ShouldStop, *, measured: bool = False) -> Path:
    """Return the folder with the model of a GGUF file, importing it if it is not in the cache.

    Args:
        path: of the file.
        emit: called with a `Log` when an import begins.
        should_stop: called between tensors and between pieces of a large one.
        measured: emit the `Progress` of the bytes written, about twice a second. Not for runs, which have their own.

    Raises:
        CorruptFile: the file is damaged.
        UnsupportedModel: its architecture, tokenizer or a tensor type is not imported.
        DiskFull, OutputProblem: the cache cannot be written.
        Cancelled: `should_stop` said so.
    """
    target = _place(read_gguf_header(path), "")
    with _cache(target, should_stop):
        if not _is_whole(target, weights=True):
            _import(path, target, emit, should_stop, measured=measured)
    return target


def import_config(model: GgufModel, should_stop: ShouldStop = never) -> Path:
    """Return a folder with config.json, generation_config.json and the tokenizer of a GGUF file, without weights.

    Raises:
        CorruptFile: the vocabulary is invalid.
        UnsupportedModel: the tokenizer is not supported.
        DiskFull, OutputProblem: the cache cannot be written.
        Cancelled: `should_stop` said so.
    """
    target = _place(model.header, "-config")
    with _cache(target, should_stop):
        if not _is_whole(target, weights=False):
            tokenizer_import.check_tokenizer(model.header, model.header.label)
            with _staged(target) as stage:
                _write_configs(model, stage)
    return target


def stored_types(path: Path) -> str:
    """Return what a GGUF file is quantized as, such as `Q4_K_M`: its own word for it where its tensors bear it out,
    else the type of most bytes of its blocks."""
    header = read_gguf_header(path)
    kinds = _bytes_by_type(header, blocks=True) or _bytes_by_type(header, blocks=False)
    number = header.metadata.get("general.file_type")
    try:
        name = LlamaFileType(number).name.partition("_")[2] if isinstance(number, int) else ""
    except ValueError:  # a type that gguf-py does not know yet
        name = ""
    if any(name == kind or name.startswith(f"{kind}_") for kind in kinds):
        return name
    return max(kinds, key=lambda kind: kinds[kind], default="nothing")


def type_shares(path: Path) -> str:
    """Return the types that make up a GGUF file by their shares of its bytes: `73 % Q8_0, 18 % Q5_0`."""
    kinds = _bytes_by_type(read_gguf_header(path), blocks=False)
    total = sum(kinds.values()) or 1
    shares = sorted(((100 * size / total, kind) for kind, size in kinds.items()), reverse=True)
    return ", ".join(f"{share:.0f} % {kind}" for share, kind in shares if share >= 0.5)


def _bytes_by_type(header: GgufHeader, *, blocks: bool) -> dict[str, int]:
    """Return the bytes of each type, of the matrices of the decoder blocks only or of all tensors."""
    found: dict[str, int] = {}
    for name, tensor in header.tensors.items():
        if not blocks or (name.startswith("blk.") and len(tensor.shape) > 1):
            found[tensor.kind.name] = found.get(tensor.kind.name, 0) + tensor.nbytes
    return found


class _Written:
    """The count of written bytes: emits `Progress` (of `total`; 0 for none) and checks for cancellation."""

    def __init__(self, total: int, emit: Emit, should_stop: ShouldStop) -> None:
        self._progress = PacedProgress(total, emit)
        self._should_stop = should_stop
        self._done = 0

    def add(self, count: int) -> None:
        """Count `count` more bytes."""
        if self._should_stop():
            raise Cancelled("Stopped while importing.")
        self._done += count
        self._progress.tell(self._done)

    def counted(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the pieces, counting each when the next one is requested."""
        for piece in pieces:
            yield piece
            self.add(len(piece))

    def end(self) -> None:
        """Report the end of the import."""
        self._progress.end()


def _place(header: GgufHeader, suffix: str) -> Path:
    """Return the cache entry of a file, which depends on its header, size and modification time."""
    stem = re.sub(r"[^\w.-]+", "_", header.path.stem)[:60]
    status = header.path.stat()
    key = hashlib.sha256(f"{_VERSION} {header.digest} {status.st_size} {status.st_mtime_ns}".encode()).hexdigest()
    return cache_folder() / f"{stem}-{key[:16]}{suffix}"


@contextmanager
def _cache(target: Path, should_stop: ShouldStop) -> Iterator[None]:
    """Lock a cache entry against other processes, and translate errors of the file system."""
    root = target.parent
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root / f".{target.name}.lock", should_stop):
            yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DiskFull(f"The disk of {root} is full.", "Free some space and try again.") from error
        raise OutputProblem(f"{root} cannot be written: {error.strerror}.", "Check its permissions.") from error


@contextmanager
def _locked(path: Path, should_stop: ShouldStop) -> Iterator[None]:
    """Hold the lock at `path`, which is released even if the process dies."""
    lock = FileLock(path)
    while True:
        if should_stop():
            raise Cancelled("Stopped while another import of this file was running.")
        try:
            lock.acquire(timeout=0.5)
            break
        except Timeout:
            continue
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _staged(target: Path) -> Iterator[Path]:
    """Yield an empty folder that is renamed to `target` on success and removed on failure."""
    shutil.rmtree(target, ignore_errors=True)
    stage = target.with_name(f".{target.name}.partial")
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir()
    try:
        yield stage
        stage.rename(target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _is_whole(folder: Path, *, weights: bool) -> bool:
    """Return whether a cached import is complete; cache cleaners may have deleted single files."""
    try:
        if not (folder / "tokenizer.json").is_file() or not isinstance(read_json(folder / "config.json"), dict):
            return False
        if not weights:
            return (folder / "tokenizer_config.json").is_file() and (folder / "generation_config.json").is_file()
        return bool(read_folder(folder))
    except BitwrightError:
        return False


def _import(path: Path, target: Path, emit: Emit, should_stop: ShouldStop, *, measured: bool) -> None:
    model = open_gguf_model(path)
    tokenizer_import.check_tokenizer(model.header, model.header.label)
    needed = sum(2 * int(np.prod(tensor.shape)) for tensor in model.tensors.values()) + _GRACE_BYTES
    if free_bytes(target.parent) < needed:
        raise DiskFull(
            f"Importing {path.name} needs {human(needed)} at {target.parent}.", "Free some space and try again."
        )
    emit(Log("info", f"Importing {path.name} to 16 bits; this is done once."))
    with _staged(target) as stage:
        _write_configs(model, stage)
        _write_tensors(model, stage, _Written(needed - _GRACE_BYTES if measured else 0, emit, should_stop))


def _write_configs(model: GgufModel, stage: Path) -> None:
    write_json(stage / "config.json", model.config)
    write_json(stage / "generation_config.json", model.generation)
    write_facts(stage, facts_in_header(model.header.metadata))
    tokenizer_import.write_tokenizer(model.path, model.header, stage)


def _write_tensors(model: GgufModel, stage: Path, written: _Written) -> None:
    plans = [TensorPlan(name, "BF16", model.mapped[name].shape) for name in model.tensors]
    with CheckpointWriter(stage, plans) as writer:
        for name, tensor in model.tensors.items():
            written.add(0)
            if tensor.name in _BIG:
                chunks = gguf_values.row_chunks(tensor)
                pieces = (_bf16(chunk).view(torch.uint8).numpy().tobytes() for chunk in chunks)
                writer.write_pieces(name, written.counted(pieces))
            else:
                values = _bf16(model.values(name))
                writer.write(name, values)
                written.add(values.nbytes)
    written.end()


def _bf16(values: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> torch.Tensor:
    return torch.from_numpy(values).to(torch.bfloat16)
