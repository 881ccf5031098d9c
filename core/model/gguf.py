"""Import a GGUF file into a cached Hugging Face folder in bf16, tensor by tensor.

Every tensor is accounted for, both ways: one that the model does not know, or that the file lacks, is an error.
Never holds more than one tensor; a folder appears under its final name only when it is whole. Knows nothing of
quantization to come.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np
import platformdirs
import torch
from filelock import FileLock, Timeout

from core.errors import BitwrightError, Cancelled, CorruptFile, DiskFull, OutputProblem, UnsupportedModel
from core.events import Emit, Log
from core.files import free_bytes, read_json, sync_folder, write_json
from core.hub.pace import PacedProgress
from core.model import gguf_config, gguf_tokenizer
from core.model.gguf_header import GgufHeader, GgufTensor, read_gguf_header
from core.model.headers import read_folder
from core.model.writer import CheckpointWriter, TensorPlan
from core.wording import human

_VERSION: Final = 1
"""Part of the cache key: raise it when an import of the same file would come out differently."""

_CHUNK_ELEMENTS: Final = 1 << 24
"""Weights dequantized at once: 64 MB in fp32, whatever the size of the embedding."""

_BIG: Final = ("token_embd.weight", "output.weight")
_GRACE_BYTES: Final = 64 << 20


def cache_folder() -> Path:
    """Where imports are kept, safe to delete while nothing runs; the environment variable BITWRIGHT_HOME moves it."""
    moved = os.environ.get("BITWRIGHT_HOME")
    base = Path(moved).absolute() if moved else platformdirs.user_cache_path("bitwright", appauthor=False)
    return base / "imports"


def import_gguf(path: Path, emit: Emit, should_stop: Callable[[], bool], *, measured: bool = False) -> Path:
    """The folder with the model of a GGUF file; imported if it is not in the cache yet.

    Args:
        path: of the file.
        emit: gets a `Log` when an import begins.
        should_stop: asked between tensors, and between the pieces of a big one.
        measured: `Progress` of the bytes written, about twice a second. Not for a run, whose `Progress` is its own.

    Raises:
        CorruptFile: the file is damaged.
        UnsupportedModel: its architecture, tokenizer or a tensor type is not imported.
        DiskFull, OutputProblem: the cache cannot be written.
        Cancelled: `should_stop` said so.
    """
    header = read_gguf_header(path)
    root = cache_folder()
    stem = re.sub(r"[^\w.-]+", "_", path.stem)[:60]
    status = path.stat()
    key = hashlib.sha256(f"{_VERSION} {header.digest} {status.st_size} {status.st_mtime_ns}".encode()).hexdigest()
    target = root / f"{stem}-{key[:16]}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root / f".{target.name}.lock", should_stop):
            if not _is_whole(target):
                shutil.rmtree(target, ignore_errors=True)
                _import(path, header, target, emit, should_stop, measured=measured)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DiskFull(f"The disk of {root} is full.", "Free some space and try again.") from error
        raise OutputProblem(f"{root} cannot be written: {error.strerror}.", "Check its rights.") from error
    return target


def stored_types(path: Path) -> str:
    """The block type that holds most weights of a GGUF file, such as `Q4_1`."""
    weights: dict[str, int] = {}
    for tensor in read_gguf_header(path).tensors.values():
        weights[tensor.kind.name] = weights.get(tensor.kind.name, 0) + int(np.prod(tensor.shape))
    return max(weights, key=lambda kind: weights[kind], default="nothing")


class _Written:
    """Bytes of an import that are written: told as `Progress` (of `total`, 0 for not at all), and a place to stop."""

    def __init__(self, total: int, emit: Emit, should_stop: Callable[[], bool]) -> None:
        self._progress = PacedProgress(total, emit)
        self._should_stop = should_stop
        self._done = 0

    def add(self, count: int) -> None:
        """So many more are written."""
        if self._should_stop():
            raise Cancelled("Stopped while importing.")
        self._done += count
        self._progress.tell(self._done)

    def counted(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """The same pieces, each counted when the next one is asked for."""
        for piece in pieces:
            yield piece
            self.add(len(piece))

    def end(self) -> None:
        """All of it is written."""
        self._progress.end()


@contextmanager
def _locked(path: Path, should_stop: Callable[[], bool]) -> Iterator[None]:
    """One import of a file at a time, on this machine; a dead process leaves no lock behind."""
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


def _is_whole(folder: Path) -> bool:
    """Whether a cached import can be used: cleaners of caches delete old files one by one."""
    try:
        if not (folder / "tokenizer.json").is_file() or not isinstance(read_json(folder / "config.json"), dict):
            return False
        return bool(read_folder(folder))
    except BitwrightError:
        return False


def _import(
    path: Path, header: GgufHeader, target: Path, emit: Emit, should_stop: Callable[[], bool], *, measured: bool
) -> None:
    blob = np.memmap(path, dtype=np.uint8, mode="r")
    factors = header.tensors.get(gguf_config.ROPE_FACTORS)
    config = gguf_config.build_config(header, path.name, _values(blob, factors).tolist() if factors else None)
    gguf_tokenizer.check_tokenizer(header, path.name)
    model = _empty_model(config)
    pairs = _pairs(header, model, path.name)
    needed = sum(2 * int(np.prod(tensor.shape)) for tensor in pairs.values()) + _GRACE_BYTES
    if free_bytes(target.parent) < needed:
        raise DiskFull(
            f"Importing {path.name} needs {human(needed)} at {target.parent}.", "Free some space and try again."
        )
    emit(Log("info", f"Importing {path.name} to 16 bits; this is done once."))
    stage = target.with_name(f".{target.name}.partial")
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir()
    try:
        config.architectures = [type(model).__name__]
        _write_configs(config, header, stage)
        gguf_tokenizer.write_tokenizer(path, header, stage)
        written = _Written(needed - _GRACE_BYTES if measured else 0, emit, should_stop)
        _write_tensors(blob, header, config, pairs, stage, written)
        stage.rename(target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _empty_model(config: Any) -> Any:
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    with torch.device("meta"):
        return auto.from_config(config)


def _pairs(header: GgufHeader, model: Any, label: str) -> dict[str, GgufTensor]:
    """Checkpoint name -> tensor of the file, for every parameter of the model.

    Raises:
        UnsupportedModel: a tensor is left over.
        CorruptFile: one is missing or has another shape.
    """
    names = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    table = gguf.get_tensor_name_map(names[header.architecture], int(model.config.num_hidden_layers))
    left = {name: tensor for name, tensor in header.tensors.items() if name != gguf_config.ROPE_FACTORS}
    tied = set(model.all_tied_weights_keys) if model.config.tie_word_embeddings else set()
    pairs = {}
    for name, parameter in model.state_dict().items():
        if name in tied:
            continue
        stem, dot, suffix = name.rpartition(".")
        known = table.get_name(stem) if suffix in ("weight", "bias") else None
        tensor = left.pop(f"{known}{dot}{suffix}", None)
        shape = tuple(parameter.shape)
        if tensor is None:
            raise CorruptFile(f"{label} has no tensor for {name}.", "Fetch the file again.")
        if _decoded_shape(header, tensor) != shape:
            raise CorruptFile(f"{label} has {name} as {tensor.shape} where its metadata say {shape}.", "")
        pairs[name] = tensor
    if left:
        raise UnsupportedModel(
            f"{label} has {len(left)} tensors that no part of the model takes, such as {next(iter(left))[:80]!r}.",
            "Use the original as a folder or from the Hub.",
        )
    return pairs


def _write_configs(config: Any, header: GgufHeader, stage: Path) -> None:
    value = config.to_diff_dict()
    value.pop("_name_or_path", None)
    write_json(stage / "config.json", value | gguf_config.old_rope_keys(value.get("rope_parameters")))
    generation = {f"{name}_token_id": getattr(config, f"{name}_token_id", None) for name in ("bos", "eos", "pad")}
    end_of_turn = header.metadata.get("tokenizer.ggml.eot_token_id")
    if end_of_turn is not None and end_of_turn != generation["eos_token_id"]:
        generation["eos_token_id"] = [generation["eos_token_id"], end_of_turn]
    write_json(stage / "generation_config.json", {key: item for key, item in generation.items() if item is not None})


def _write_tensors(
    blob: np.ndarray[Any, Any],
    header: GgufHeader,
    config: Any,
    pairs: dict[str, GgufTensor],
    stage: Path,
    written: _Written,
) -> None:
    from transformers import modeling_gguf_pytorch_utils as conversions

    kinds: dict[str, Any] = conversions.TENSOR_PROCESSORS
    processor = kinds.get(header.architecture, conversions.TensorProcessor)(config=config.to_dict())
    plans = [TensorPlan(name, "BF16", _decoded_shape(header, tensor)) for name, tensor in pairs.items()]
    with CheckpointWriter(stage, plans) as writer:
        for name, tensor in pairs.items():
            written.add(0)
            if tensor.name in _BIG:
                writer.write_pieces(name, written.counted(_pieces(blob, tensor)))
                continue
            # Undoes what llama.cpp's converter does: rotary rows of q and k, Gemma's norms + 1, GPT-2's layout.
            weights = processor.process(weights=_values(blob, tensor), name=tensor.name).weights
            values = torch.from_numpy(np.array(weights, dtype=np.float32, order="C")).to(torch.bfloat16)
            writer.write(name, values)
            written.add(values.nbytes)
    written.end()


def _decoded_shape(header: GgufHeader, tensor: GgufTensor) -> tuple[int, ...]:
    """Shape in the checkpoint: llama.cpp stores GPT-2's blocks the other way round."""
    turned = header.architecture == "gpt2" and tensor.name.startswith("blk.")
    return tensor.shape[::-1] if turned else tensor.shape


def _values(blob: np.ndarray[Any, Any], tensor: GgufTensor) -> np.ndarray[Any, Any]:
    """A tensor's values in fp32, in its shape."""
    rows = int(np.prod(tensor.shape[:-1]))
    return _rows(blob, tensor, 0, rows).reshape(tensor.shape)


def _pieces(blob: np.ndarray[Any, Any], tensor: GgufTensor) -> Iterator[bytes]:
    """The bf16 bytes of a matrix, dequantized a few rows at a time."""
    rows, columns = tensor.shape
    step = max(1, _CHUNK_ELEMENTS // columns)
    for start in range(0, rows, step):
        values = torch.from_numpy(np.array(_rows(blob, tensor, start, min(rows, start + step))))
        yield values.to(torch.bfloat16).view(torch.uint8).numpy().tobytes()


def _rows(blob: np.ndarray[Any, Any], tensor: GgufTensor, start: int, stop: int) -> np.ndarray[Any, Any]:
    width = tensor.nbytes // int(np.prod(tensor.shape[:-1]))
    raw = blob[tensor.start + start * width : tensor.start + stop * width].reshape(stop - start, width)
    try:
        return np.asarray(gguf.dequantize(raw, tensor.kind), dtype=np.float32)
    except NotImplementedError as error:
        raise UnsupportedModel(
            f"Weights stored as {tensor.kind.name} are not read.", "Use a file with another type, such as Q8_0."
        ) from error
