"""Loading of a checkpoint into the native program: linear layers one at a time, norms, embeddings, RoPE tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from core.control import ShouldStop
from core.errors import Cancelled, UnsupportedModel
from core.formats.gguf.reader import GgufCheckpoint
from core.formats.stored import Checkpoint
from core.inference.memory import memory_errors
from core.inference.native import library, matrix
from core.inference.native.matrix import Matrix
from core.inference.native.model_spec import ModelSpec, linears, model_spec, norms
from core.inference.native.program import BlockWeights, OuterWeights, Program, RopeTable
from core.model.skeleton import Skeleton

_DENSE = (torch.float32, torch.bfloat16, torch.float16)
_PIECE = 4 << 20
"""Bytes of a large float32 matrix that are read at a time."""


def _rows_of(inputs: int) -> int:
    """Return the rows of such a piece, a multiple of the tile height."""
    return max(16, _PIECE // (4 * inputs) // 16 * 16)


class _Source:
    """A checkpoint whose tensors are read by the names of the model."""

    def __init__(self, checkpoint: Checkpoint, skeleton: Skeleton, planes: int) -> None:
        self._checkpoint, self._skeleton, self._planes = checkpoint, skeleton, planes
        self._quantized = {skeleton.module_name(name): name for name in checkpoint.schemes}

    def quantized(self, module: str) -> bool:
        return module in self._quantized

    def matrix(self, module: str) -> Matrix:
        """Return a linear layer, packed in the scheme in which it is stored."""
        name = self._quantized.get(module)
        if name is not None:
            return matrix.pack(self._checkpoint.layer(name), self._optional(f"{module}.bias"), planes=self._planes)
        bias, key = self._optional(f"{module}.bias"), self._skeleton.checkpoint_name(f"{module}.weight")
        if key is None or self._skeleton.store.info(key).nbytes <= _PIECE:
            return matrix.dense(self.tensor(f"{module}.weight"), bias)
        outputs, inputs = self._skeleton.store.info(key).shape
        return matrix.dense_pieces(self._pieces(key, outputs, _rows_of(inputs)), outputs, bias)

    def _pieces(self, key: str, outputs: int, rows: int) -> Iterator[Tensor]:
        """Yield a matrix some rows at a time, so that a large one is not in memory twice, stored and packed."""
        for start in range(0, outputs, rows):
            value = self._skeleton.store.rows(key, torch.arange(start, min(outputs, start + rows)))
            yield value if value.dtype in _DENSE else value.to(torch.float32)

    def shared(self, module: str) -> Matrix:
        """Return an embedding that is tied to the head, packed in block types if a GGUF file has it in one."""
        key = self._skeleton.checkpoint_name(f"{module}.weight")
        if key is not None and isinstance(self._checkpoint, GgufCheckpoint):
            outputs, inputs = self._skeleton.store.info(key).shape
            stored = self._checkpoint.embedding_pieces(key.removesuffix(".weight"), _rows_of(inputs))
            if stored is not None:
                return matrix.pack_pieces(stored, outputs, planes=self._planes)
        return self.matrix(module)

    def tensor(self, name: str) -> Tensor:
        """Return a tensor in its own dtype if the kernels support it, else in float32."""
        found = self._optional(name)
        if found is None:
            raise UnsupportedModel(f"The checkpoint has no tensor for {name}, which this architecture needs.")
        return found

    def _optional(self, name: str) -> Tensor | None:
        key = self._skeleton.checkpoint_name(name)
        if key is None:
            return None
        value = self._skeleton.store.get(key)
        return value if value.dtype in _DENSE else value.to(torch.float32)


def fill_program(
    checkpoint: Checkpoint,
    skeleton: Skeleton,
    context: int,
    threads: int,
    planes: int,
    dtype: torch.dtype,
    *,
    progress: Callable[[int, int], None],
    should_stop: ShouldStop,
) -> Program:
    """Build the program of a checkpoint; arguments and errors as for `core.inference.runners.native.build`."""
    kernels = library.load()
    spec = model_spec(skeleton.model.config.get_text_config(decoder=True).to_dict())
    if not kernels.bw_has_fp16_cache():
        dtype = torch.float32
    source = _Source(checkpoint, skeleton, planes)
    with memory_errors("Loading the model"):
        tables = _rope_tables(skeleton, spec, context)
        program = Program(kernels, spec, context, threads or torch.get_num_threads(), dtype, tables)
        outer = _outer_weights(source, skeleton, spec)
        program.add_embedding(outer)
        for number in range(len(spec.blocks)):
            if should_stop():
                raise Cancelled("Loading was cancelled.")
            program.add_block(_block(source, f"{skeleton.stack}.{number}", spec))
            progress(number + 1, len(spec.blocks))
        program.add_head(outer)
    return program


def _outer_weights(source: _Source, skeleton: Skeleton, spec: ModelSpec) -> OuterWeights:
    embedding, head = skeleton.ends()
    norm = next(
        name.removesuffix(".weight")
        for name, _ in skeleton.model.named_parameters()
        if name.endswith("norm.weight") and not name.startswith((f"{skeleton.stack}.", *skeleton.towers))
    )
    # A tied head and the embedding use one copy of the weights.
    shared = skeleton.tree.tied and not source.quantized(head)
    table = None if shared else source.tensor(f"{embedding}.weight")
    rows = source.shared(embedding) if shared else source.matrix(head)
    return OuterWeights(table, _norm(source, norm, spec), rows)


def _block(source: _Source, path: str, spec: ModelSpec) -> BlockWeights:
    matrices = {name: source.matrix(f"{path}.{name}") for name in linears(spec.architecture)}
    return BlockWeights(matrices, {name: _norm(source, f"{path}.{name}", spec) for name in norms(spec.architecture)})


def _norm(source: _Source, path: str, spec: ModelSpec) -> Tensor:
    return source.tensor(f"{path}.weight").to(torch.float32) + spec.architecture.norm_offset


def _rope_tables(skeleton: Skeleton, spec: ModelSpec, context: int) -> tuple[dict[str, RopeTable], ...]:
    """Return the RoPE tables of the model's own rotary module; two sets for LongRoPE, for short and for long texts."""
    names = {block.rope for block in spec.blocks if block.rope is not None}
    beside = f"{skeleton.stack.rpartition('.')[0]}."  # towers can have one, too
    modules = {name: part for name, part in skeleton.model.named_modules() if name.endswith("rotary_emb")}
    module: Any = modules[next((name for name in modules if name.startswith(beside)), next(iter(modules)))]
    config = skeleton.model.config.get_text_config(decoder=True)
    own = int(config.max_position_embeddings)
    if module.rope_type == "dynamic" and context > own:
        raise UnsupportedModel(f"The model's dynamic RoPE changes beyond {own} tokens.", f"Choose a context of {own}.")
    lengths = (min(spec.short_context, context), context) if spec.short_context else (context,)
    return tuple({name: _rope_table(module, name, length) for name in names} for length in lengths)


def _rope_table(module: Any, name: str, length: int) -> RopeTable:
    positions, like = torch.arange(length).unsqueeze(0), torch.empty(0)
    cos, sin = module(like, positions, **({"layer_type": name} if name else {}))
    if cos.shape[-1] % 2:
        raise UnsupportedModel(f"The model's RoPE rotates {cos.shape[-1]} components, which is an odd number.")
    half = cos.shape[-1] // 2
    return RopeTable(cos[0, :, :half].contiguous(), sin[0, :, :half].contiguous())
