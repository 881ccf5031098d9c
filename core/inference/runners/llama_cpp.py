"""Runner for GGUF files on llama.cpp, through the C API of llama-cpp-python.

llama.cpp aborts the process for some invalid inputs, so inputs are checked before.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from core.control import ShouldStop, never
from core.errors import BadInput, Cancelled, CorruptFile, MissingDependency, OutOfMemory
from core.inference.backends import llama_cpp as backend
from core.model.gguf_header import read_gguf_header

PIECE: Final = 512
"""Tokens of a prompt processed at once."""
_ALL_LAYERS: Final = 9999
_ABORTED: Final = 2
_CACHE_BYTES: Final = 2
"""llama.cpp stores keys and values in float16 by default."""


class LlamaCppRunner:
    """A loaded GGUF file with its cache. Created by `open_runner`."""

    name = backend.NAME

    def __init__(self, library: Any, model: Any, handle: Any, context: int, window: int) -> None:
        self._lib, self._model, self._handle = library, model, handle
        self._context, self._length, self._window = context, 0, window
        self._vocabulary = int(library.llama_vocab_n_tokens(library.llama_model_get_vocab(model)))
        self._batch = library.llama_batch_init(PIECE, 0, 1)
        self._should_stop: ShouldStop = never
        # Called by llama.cpp between operations. The reference keeps it alive, because C stores only its address.
        self._abort = library.ggml_abort_callback(lambda data: bool(self._should_stop()))
        library.llama_set_abort_callback(handle, self._abort, None)

    @property
    def context(self) -> int:
        return self._context

    @property
    def length(self) -> int:
        return self._length

    @property
    def memory_bytes(self) -> int:
        lib, model = self._lib, self._model
        head = lib.llama_model_n_embd(model) // max(1, lib.llama_model_n_head(model))
        row = 2 * _CACHE_BYTES * head * lib.llama_model_n_head_kv(model) * lib.llama_model_n_layer(model)
        return int(lib.llama_model_size(model)) + row * self._window

    @property
    def vocabulary(self) -> int:
        """Size of the vocabulary."""
        return self._vocabulary

    def extend(self, ids: Sequence[int], should_stop: ShouldStop = never) -> Tensor:
        """See `Runner.extend`. A stop also takes effect within a piece, between operations."""
        self._check(ids, self._length)
        row: Tensor | None = None
        for start in range(0, len(ids), PIECE):
            piece = ids[start : start + PIECE]
            last = start + len(piece) == len(ids)
            self._decode(piece, [last and index == len(piece) - 1 for index in range(len(piece))], should_stop)
            if last:
                row = self._row(len(piece) - 1)
        assert row is not None
        return row

    def truncate(self, length: int) -> None:
        """See `Runner.truncate`."""
        if not 0 <= length <= self._length:
            raise BadInput(
                f"The cache holds {self._length} tokens and cannot be truncated to {length}.",
                "Start a new conversation.",
            )
        if length < self._length:
            self._forget(length)

    def logits(self, ids: Sequence[int]) -> Tensor:
        """See `Runner.logits`."""
        self._forget(0)
        self._check(ids, 0)
        found = torch.empty(len(ids), self._vocabulary)
        for start in range(0, len(ids), PIECE):
            piece = ids[start : start + PIECE]
            self._decode(piece, [True] * len(piece), never)
            for index in range(len(piece)):
                found[start + index] = self._row(index)
        self._forget(0)
        return found

    def close(self) -> None:
        """See `Runner.close`; further calls do nothing."""
        if self._handle is None:
            return
        self._lib.llama_batch_free(self._batch)
        self._lib.llama_free(self._handle)
        self._lib.llama_model_free(self._model)
        self._handle = self._model = self._batch = None

    def _check(self, ids: Sequence[int], held: int) -> None:
        if not len(ids):
            raise BadInput("There is no text to process.", "Write something.")
        if held + len(ids) > self._context:
            raise BadInput(
                f"{held + len(ids)} tokens do not fit into a context of {self._context}.", "Start a new conversation."
            )
        if min(ids) < 0 or max(ids) >= self._vocabulary:
            raise BadInput(
                f"A token id is outside the model's vocabulary of {self._vocabulary} tokens.",
                "Use the tokenizer of this model.",
            )

    def _decode(self, piece: Sequence[int], wanted: Sequence[bool], should_stop: ShouldStop) -> None:
        """Process one piece and append it to the cache."""
        if should_stop():
            raise Cancelled("Stopped.")
        batch = self._batch
        batch.n_tokens = len(piece)
        for index, token in enumerate(piece):
            batch.token[index], batch.pos[index] = int(token), self._length + index
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, 0
            batch.logits[index] = wanted[index]
        # A single token is fast, and a Python callback between its operations would slow it down.
        self._should_stop = should_stop if len(piece) > 1 else never
        try:
            code = self._lib.llama_decode(self._handle, batch)
        finally:
            self._should_stop = never
        if code == 0:
            self._length += len(piece)
            return
        self._forget(self._length)  # remove the processed part of this piece
        if code == _ABORTED:
            raise Cancelled("Stopped.")
        raise OutOfMemory(
            f"llama.cpp failed to process {len(piece)} tokens (code {code}).", "Choose a shorter context."
        )

    def _forget(self, length: int) -> None:
        memory = self._lib.llama_get_memory(self._handle)
        if not self._lib.llama_memory_seq_rm(memory, 0, length, -1):
            raise BadInput("llama.cpp cannot truncate the cache of this kind of model.", "Load the model again.")
        self._length = length

    def _row(self, index: int) -> Tensor:
        pointer = self._lib.llama_get_logits_ith(self._handle, index)
        return torch.from_numpy(np.ctypeslib.as_array(pointer, shape=(self._vocabulary,)).copy())


def open_runner(
    path: Path,
    context: int,
    threads: int,
    device: str = "cpu",
    should_stop: ShouldStop = never,
) -> LlamaCppRunner:
    """Load a GGUF file.

    Args:
        path: the GGUF file.
        context: length of the cache in tokens.
        threads: number of CPU threads.
        device: `cpu`, or any other value to offload all layers to llama.cpp's accelerator.
        should_stop: polled while loading.

    Raises:
        MissingDependency: llama-cpp-python cannot be used.
        CorruptFile, ModelNotFound: the file is damaged or missing.
        OutOfMemory: the cache does not fit into memory.
        Cancelled: `should_stop` returned True.
    """
    try:
        lib = backend.library()
    except ImportError as error:
        raise MissingDependency(str(error), backend.INSTALL) from error
    path = read_gguf_header(path).path  # raises an error for files for which llama.cpp would abort the process
    settings = lib.llama_model_default_params()
    settings.n_gpu_layers = 0 if device == "cpu" else _ALL_LAYERS
    progress = lib.llama_progress_callback(lambda fraction, data: not should_stop())
    settings.progress_callback = progress
    model = lib.llama_model_load_from_file(str(path).encode("utf-8"), settings)
    if should_stop():
        if model:
            lib.llama_model_free(model)
        raise Cancelled("Loading was cancelled.")
    if not model:
        raise CorruptFile(f"llama.cpp cannot load {path.name}.", "Choose another backend, or download the file again.")
    wanted = lib.llama_context_default_params()
    wanted.n_ctx, wanted.n_batch, wanted.n_ubatch = context, PIECE, PIECE
    wanted.n_threads = wanted.n_threads_batch = threads
    wanted.swa_full = True  # a cache limited to the sliding window cannot be truncated
    handle = lib.llama_init_from_model(model, wanted)
    if not handle:
        lib.llama_model_free(model)
        raise OutOfMemory(f"There is too little memory for a context of {context} tokens.", "Choose a shorter context.")
    window = int(lib.llama_n_ctx(handle))  # rounded up by llama.cpp
    return LlamaCppRunner(lib, model, handle, context, window)
