"""The native program of a model: the op graph of one step, built from a spec and weights, and the KV cache."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from core.control import ShouldStop
from core.inference.native import op_graph, shapes
from core.inference.native.library import MAX_THREADS, Memory, checked, memory
from core.inference.native.matrix import Matrix
from core.inference.native.model_spec import ModelSpec
from core.inference.native.op_graph import OpGraph

ROWS = 256
"""Most tokens of one step: enough for efficient matmuls, few enough for the processor's caches."""
_TILE = 16
_MAX_SPLITS = 16
"""Most parts into which the keys of one token are split."""


@dataclass(frozen=True, eq=False)
class BlockWeights:
    """The weights of a block by module name: linear layers, and norms in float32 with their offset added."""

    matrices: dict[str, Matrix]
    norms: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class OuterWeights:
    """The weights outside the blocks.

    Attributes:
        table: embedding [vocab_size, hidden_size] in its own dtype; None if the rows of the head are used.
        norm: float32 [hidden_size], applied before the head.
        head: output matrix.
    """

    table: Tensor | None
    norm: Tensor
    head: Matrix


@dataclass(frozen=True, eq=False)
class RopeTable:
    """The cosines and sines of all positions, float32 [positions, rotary_dim / 2]."""

    cos: Tensor
    sin: Tensor


class Program:
    """The op graph of a model with its KV cache: computes the logits of tokens at a position.

    The caller keeps track of the tokens in the cache. Not thread-safe. All shapes are checked against the spec before
    the compiled program gets a pointer; `core.inference.native.shapes` lists the errors.

    Args:
        library: the compiled kernels.
        spec: of the model.
        context: capacity of the cache in tokens.
        threads: number of threads.
        dtype: of the cache, float16 or float32.
        rope_tables: by the names in `BlockSpec.rope`; two sets if the spec has a `short_context`, for texts up to that
            length and for longer ones.
    """

    def __init__(
        self,
        library: Any,
        spec: ModelSpec,
        context: int,
        threads: int,
        dtype: torch.dtype,
        rope_tables: tuple[dict[str, RopeTable], ...],
    ) -> None:
        self.spec, self.threads = spec, min(threads, MAX_THREADS)
        self.context = -(-context // _TILE) * _TILE
        self._shapes = shapes.block_shapes(spec)
        for which, tables in enumerate(rope_tables):
            length = min(context, spec.short_context) if which == 0 and spec.short_context else context
            for table in tables.values():
                shapes.check_rope_table(table.cos, table.sin, length, spec.head_dim)
        self._library = library
        self._rope_tables = rope_tables
        self._rope_ops: list[tuple[op_graph.Attention, str]] = []
        self._dtype = dtype
        self._graph = OpGraph(min(ROWS, self.context))
        self._caches: list[tuple[Tensor, Tensor]] = []
        self._weights = 0
        self._struct: op_graph.ProgramStruct | None = None
        self._which = 0
        self.op_nanoseconds = torch.zeros(len(op_graph.KINDS), dtype=torch.int64)
        splits = (_MAX_SPLITS, op_graph.SPLIT_KV_ROWS * spec.num_heads, spec.head_dim + 2)
        self._partial = torch.zeros(splits)
        self._x = self._graph.buffer("x", spec.hidden_size)
        # Output of attention or MLP that the next RMSNORM operation adds to x, and the weights of its norm.
        self._pending: tuple[Tensor | None, Tensor | None] = (None, None)

    @property
    def rows(self) -> int:
        """Most tokens of one step."""
        return self._graph.rows

    @property
    def memory_bytes(self) -> int:
        """Bytes of weights, cache, tables and buffers."""
        cache = sum(part.nbytes for pair in self._caches for part in pair)
        tables = sum(
            part.nbytes for names in self._rope_tables for table in names.values() for part in (table.cos, table.sin)
        )
        return self._weights + cache + tables + self._graph.nbytes + self._partial.nbytes

    def add_embedding(self, outer: OuterWeights) -> None:
        """Add the first operation, the embedding lookup."""
        spec = self.spec
        shapes.check("The output head", outer.head, (spec.vocab_size, spec.hidden_size))
        if outer.table is not None:
            shapes.check("The embedding", outer.table, (spec.vocab_size, spec.hidden_size))
        shapes.check("The last norm", outer.norm, (spec.hidden_size,))
        matrix = outer.head if outer.table is None else None
        args = op_graph.embedding(matrix, outer.table, spec.vocab_size, self.spec.embedding_scale, self._x)
        self._weights += 0 if outer.table is None else outer.table.nbytes
        self._graph.add(op_graph.EMBEDDING, args, outer)

    def add_block(self, weights: BlockWeights) -> None:
        """Add the operations of the next block."""
        everything: dict[str, Matrix | Tensor] = {**weights.matrices, **weights.norms}
        for name, found in everything.items():
            shapes.check(f"{name} of block {len(self._caches)}", found, self._shapes[name])
        self._weights += sum(matrix.nbytes for matrix in weights.matrices.values())
        self._weights += sum(norm.nbytes for norm in weights.norms.values())
        self._attention(weights)
        self._mlp(weights)

    def add_head(self, outer: OuterWeights) -> None:
        """Add the last operations, the final norm and the logits, and finish the graph."""
        spec, graph = self.spec, self._graph
        out = graph.buffer("logit_rows", spec.hidden_size)
        source = graph.matmul_input(out, [outer.head], logit_rows_only=True)
        self._rmsnorm(outer.norm, out, source, logit_rows_only=True)
        graph.matmul([(outer.head, None, 0)], source, logit_rows_only=True)
        if spec.logit_softcap or spec.logit_scale != 1.0:
            args = op_graph.Logits(vocab_size=spec.vocab_size, scale=spec.logit_scale, softcap=spec.logit_softcap)
            graph.add(op_graph.LOGITS, args, logit_rows_only=True)
        self._weights += outer.head.nbytes + outer.norm.nbytes
        self._struct = graph.finished(self.threads)
        self._check()

    def step(self, tokens: Tensor, position: int, logits: Tensor | None, should_stop: ShouldStop | None = None) -> bool:
        """Compute one step and write its keys and values to the cache. Return False if it was stopped.

        Args:
            tokens: int32 [at most `rows`].
            position: of the first token.
            logits: output, float32 [1, vocab_size] for the last token or [tokens, vocab_size] for all; None for none.
            should_stop: called every few milliseconds; returning True stops the step.

        Raises:
            CorruptFile: the compiled program refuses the step: a token outside of the vocabulary, a position beyond
                the cache, or memory of another size.
        """
        assert self._struct is not None
        rows = len(tokens)
        if tokens.dtype != torch.int32 or (logits is not None and logits.dtype != torch.float32):
            raise ValueError("tokens are int32 and logits float32")
        wanted = op_graph.NO_LOGITS
        if logits is not None:
            wanted = op_graph.LAST_LOGITS if len(logits) == 1 else op_graph.ALL_LOGITS
        raised: list[BaseException] = []

        def ask() -> int:
            try:
                return int(should_stop is not None and should_stop())
            except BaseException as error:  # noqa: BLE001 - exceptions cannot pass through compiled code
                raised.append(error)
                return 1

        callback = op_graph.ShouldStop(ask) if should_stop is not None else None
        step = op_graph.Step(
            tokens=memory(tokens),
            rows=rows,
            position=position,
            wanted=wanted,
            logits=_optional(logits),
            should_stop=None if callback is None else ctypes.cast(callback, ctypes.c_void_p),
        )
        stopped = checked(self._library.bw_run(ctypes.byref(self._struct), ctypes.byref(step)))
        if raised:
            raise raised[0]
        return not stopped

    def _check(self) -> None:
        """Check the graph: the longest step at the end of the cache must be valid."""
        assert self._struct is not None
        tokens = torch.zeros(self.rows, dtype=torch.int32)
        logits = torch.empty(1, self.spec.vocab_size)
        # The cache is rounded up to whole tiles; the RoPE tables are not.
        ends = [len(table.cos) for table in self._rope_tables[0].values()]
        position = max(0, min([self.context, *ends]) - self.rows)
        rows = min([self.rows, *ends])
        step = op_graph.Step(memory(tokens), rows, position, op_graph.LAST_LOGITS, logits=memory(logits))
        checked(self._library.bw_check(ctypes.byref(self._struct), ctypes.byref(step)))

    def select_rope_tables(self, length: int) -> bool:
        """Select the RoPE tables for a text of `length` tokens.

        Returns:
            Whether the tables changed, which makes the contents of the cache invalid.
        """
        which = int(self.spec.short_context > 0 and length > self.spec.short_context)
        if which == self._which:
            return False
        for args, name in self._rope_ops:
            table = self._rope_tables[which][name]
            args.cos, args.sin = memory(table.cos), memory(table.sin)
        self._which = which
        return True

    def profile(self, on: bool) -> None:
        """Switch on or off the collection of nanoseconds for each kind of operation in `op_nanoseconds`."""
        assert self._struct is not None
        self._struct.op_nanoseconds = memory(self.op_nanoseconds) if on else Memory()
        self.op_nanoseconds.zero_()

    def _attention(self, weights: BlockWeights) -> None:
        spec, graph, modules = self.spec, self._graph, self.spec.architecture.modules
        queries, keys = spec.query_size, spec.key_size
        qkv = graph.buffer("qkv", queries + 2 * keys)
        columns = {"attn_qkv": 0, "attn_q": 0, "attn_k": queries, "attn_v": queries + keys}
        parts = [(weights.matrices[modules[name]], qkv, column) for name, column in columns.items() if name in modules]
        graph.matmul(parts, self._normed(self._norm(weights, "attn_norm"), [part[0] for part in parts]))
        output = weights.matrices[modules["attn_output"]]
        source = graph.matmul_input(graph.buffer("attention", queries), [output])
        args = self._attention_args(qkv, weights, source)
        graph.add(op_graph.QK_NORM_ROPE, args, source, weights, self._caches[-1])
        graph.add(op_graph.ATTENTION, args)
        graph.add(op_graph.SPLIT_KV_REDUCE, args)
        self._add_to_residual(output, source, self._norm(weights, "post_attention_norm"))

    def _attention_args(self, qkv: Tensor, weights: BlockWeights, source: op_graph.MatmulInput) -> op_graph.Attention:
        spec = self.spec
        block = spec.blocks[len(self._caches)]
        queries, keys = spec.query_size, spec.key_size
        cache = [torch.empty(self.context * keys, dtype=self._dtype) for _ in range(2)]
        self._caches.append((cache[0], cache[1]))
        rope = None if block.rope is None else self._rope_tables[0][block.rope]
        args = op_graph.Attention(
            num_heads=spec.num_heads,
            num_kv_heads=spec.num_kv_heads,
            head_dim=spec.head_dim,
            rotary_dim=0 if rope is None else 2 * rope.cos.shape[1],
            context_length=self.context,
            fp16_cache=int(self._dtype == torch.float16),
            window=block.window,
            norm_all_heads=int(spec.architecture.qk_norm_whole),
            epsilon=spec.epsilon,
            scale=spec.attention_scale,
            softcap=spec.attention_softcap,
            max_splits=self._partial.shape[0],
            q=memory(qkv),
            k=memory(qkv, queries),
            v=memory(qkv, queries + keys),
            stride=qkv.shape[1],
            q_norm=_optional(self._norm(weights, "attn_q_norm")),
            k_norm=_optional(self._norm(weights, "attn_k_norm")),
            cos=_optional(None if rope is None else rope.cos),
            sin=_optional(None if rope is None else rope.sin),
            key_cache=memory(cache[0]),
            value_cache=memory(cache[1]),
            partial=memory(self._partial),
            out=memory(source.buffer),
            quantized_inputs=source.quantized_inputs,
        )
        if block.rope is not None:
            self._rope_ops.append((args, block.rope))
        return args

    def _norm(self, weights: BlockWeights, name: str) -> Tensor | None:
        """Return the weights of the norm that a GGUF file calls `name`, or None if the architecture has none."""
        return weights.norms.get(self.spec.architecture.modules.get(name, ""))

    def _mlp(self, weights: BlockWeights) -> None:
        spec, graph, modules = self.spec, self._graph, self.spec.architecture.modules
        both = graph.buffer("gates", 2 * spec.intermediate_size)
        columns = {"ffn_gate": 0, "ffn_up": spec.intermediate_size if "ffn_gate" in modules else 0}
        parts = [(weights.matrices[modules[name]], both, column) for name, column in columns.items() if name in modules]
        graph.matmul(parts, self._normed(self._norm(weights, "ffn_norm"), [part[0] for part in parts]))
        down = weights.matrices[modules["ffn_down"]]
        source = graph.matmul_input(graph.buffer("gated", spec.intermediate_size), [down])
        args = op_graph.GatedActivation(
            activation=spec.activation,
            intermediate_size=spec.intermediate_size,
            gate=memory(both),
            up=memory(both, spec.intermediate_size),
            stride=both.shape[1],
            out=memory(source.buffer),
            quantized_inputs=source.quantized_inputs,
        )
        graph.add(op_graph.GATED_ACTIVATION, args, source)
        self._add_to_residual(down, source, self._norm(weights, "post_ffw_norm"))

    def _add_to_residual(self, matrix: Matrix, source: op_graph.MatmulInput, post_norm: Tensor | None) -> None:
        """Add a matmul whose result is added to x: directly, or by the next RMSNORM if it is normed or scaled first."""
        if post_norm is None and self.spec.residual_scale == 1.0:
            self._graph.matmul([(matrix, self._x, 0)], source, add=True)
            return
        y = self._graph.buffer("y", self.spec.hidden_size)
        self._graph.matmul([(matrix, y, 0)], source)
        self._pending = (y, post_norm)

    def _normed(self, norm: Tensor | None, readers: list[Matrix]) -> op_graph.MatmulInput:
        """Return x for these matrices, normed unless the architecture has no norm there."""
        out = self._x if norm is None else self._graph.buffer("normed", self.spec.hidden_size)
        source = self._graph.matmul_input(out, readers)
        self._rmsnorm(norm, out, source)
        return source

    def _rmsnorm(
        self, norm: Tensor | None, out: Tensor, source: op_graph.MatmulInput, *, logit_rows_only: bool = False
    ) -> None:
        spec, (y, post_norm) = self.spec, self._pending
        self._pending = (None, None)
        args = op_graph.RmsNorm(
            hidden_size=spec.hidden_size,
            epsilon=spec.epsilon,
            scale=spec.residual_scale,
            x=memory(self._x),
            y=_optional(y),
            post_norm=_optional(post_norm),
            norm=_optional(norm),
            out=memory(out),
            quantized_inputs=source.quantized_inputs,
        )
        self._graph.add(op_graph.RMSNORM, args, post_norm, norm, source, logit_rows_only=logit_rows_only)


def _optional(tensor: Tensor | None) -> Memory:
    """Return the memory of a tensor, or null memory for None."""
    return Memory() if tensor is None else memory(tensor)
