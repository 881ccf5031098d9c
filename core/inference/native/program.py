"""A model's step as a tape: from its spec and its weights to the operations, with the cache that they write.

Knows the order of the operations of a decoder block; reads no files.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from core.control import ShouldStop
from core.inference.native import shapes
from core.inference.native import tape as tapes
from core.inference.native.library import MOST_THREADS, Memory, checked, memory
from core.inference.native.matrix import Matrix
from core.inference.native.model_spec import ModelSpec
from core.inference.native.tape import Tape

ROWS = 256
"""Tokens of one step at most: enough for the products, few enough for the caches."""
_TILE = 16
_PAIRS = 16
"""Pieces that the keys of one token are cut into at most."""


@dataclass(frozen=True, eq=False)
class BlockWeights:
    """Linear layers by their names in a block, and norms, float32, as they are multiplied."""

    matrices: dict[str, Matrix]
    norms: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Ends:
    """What lies outside the blocks.

    Attributes:
        table: embeddings [vocabulary, width] in their own dtype; None where the head's rows are used.
        norm: float32 [width], before the head.
        head: of the logits.
    """

    table: Tensor | None
    norm: Tensor
    head: Matrix


@dataclass(frozen=True, eq=False)
class Rotation:
    """Cosines and sines of all positions, float32 [context, half of the turned width]."""

    cosine: Tensor
    sine: Tensor


class Program:
    """A model that computes steps: tokens at a position to logits. Holds the cache, and what is in it is the caller's
    to know. Not for two threads at once.

    Every shape is held against the spec before memory is pointed to; see `shapes` for what is raised.

    Args:
        library: the compiled kernels.
        spec: of the model.
        context: tokens that the cache holds.
        threads: that compute.
        dtype: of the cache, float16 or float32.
        rotations: by the names that the spec's blocks have for them; two where the spec has a `short`, for texts up
            to it and for longer ones.
    """

    def __init__(
        self,
        library: Any,
        spec: ModelSpec,
        context: int,
        threads: int,
        dtype: torch.dtype,
        rotations: tuple[dict[str, Rotation], ...],
    ) -> None:
        self.spec, self.threads = spec, min(threads, MOST_THREADS)
        self.context = -(-context // _TILE) * _TILE
        self._shapes = shapes.block_shapes(spec)
        for which, tables in enumerate(rotations):
            length = min(context, spec.short_context) if which == 0 and spec.short_context else context
            for table in tables.values():
                shapes.check_rotation(table.cosine, table.sine, length, spec.head_dim)
        self._library = library
        self._rotations = rotations
        self._turned: list[tuple[tapes.Heads, str]] = []
        self._dtype = dtype
        self._tape = Tape(min(ROWS, self.context))
        self._caches: list[tuple[Tensor, Tensor]] = []
        self._weights = 0
        self._struct: tapes.ProgramStruct | None = None
        self._which = 0
        self.spent = torch.zeros(len(tapes.KINDS), dtype=torch.int64)
        splits = (_PAIRS, tapes.SPLIT_ROWS * spec.num_heads, spec.head_dim + 2)
        self._partial = torch.zeros(splits)
        self._x = self._tape.buffer("x", spec.hidden_size)
        # What the next operation on rows adds to x first: (what, weights of its norm or None).
        self._pending: tuple[Tensor | None, Tensor | None] = (None, None)

    @property
    def rows(self) -> int:
        """Tokens of one step at most."""
        return self._tape.rows

    @property
    def memory_bytes(self) -> int:
        """Of weights, cache and buffers."""
        cache = sum(part.nbytes for pair in self._caches for part in pair)
        tables = sum(
            part.nbytes for names in self._rotations for table in names.values() for part in (table.cosine, table.sine)
        )
        return self._weights + cache + tables + self._tape.nbytes + self._partial.nbytes

    def begin(self, ends: Ends) -> None:
        """The first operation: look the tokens up."""
        spec = self.spec
        shapes.check("The output head", ends.head, (spec.vocab_size, spec.hidden_size))
        if ends.table is not None:
            shapes.check("The embedding", ends.table, (spec.vocab_size, spec.hidden_size))
        shapes.check("The last norm", ends.norm, (spec.hidden_size,))
        matrix = ends.head if ends.table is None else None
        what = tapes.embed(matrix, ends.table, spec.vocab_size, self.spec.embedding_scale, self._x)
        self._weights += 0 if ends.table is None else ends.table.nbytes
        self._tape.add(tapes.EMBED, what, ends)

    def add_block(self, weights: BlockWeights) -> None:
        """The operations of the next block."""
        everything: dict[str, Matrix | Tensor] = {**weights.matrices, **weights.norms}
        for name, found in everything.items():
            shapes.check(f"{name} of block {len(self._caches)}", found, self._shapes[name])
        self._weights += sum(matrix.nbytes for matrix in weights.matrices.values())
        self._weights += sum(norm.nbytes for norm in weights.norms.values())
        self._attention(weights)
        self._mlp(weights)

    def finish(self, ends: Ends) -> None:
        """The last operations: the norm and the logits of those rows that are wanted."""
        spec, tape = self.spec, self._tape
        out = tape.buffer("tail", spec.hidden_size)
        reads = tape.reads(out, [ends.head], tail=True)
        self._rows_op(ends.norm, out, reads, tail=True)
        tape.linear([(ends.head, None, 0)], reads, tail=True)
        if spec.logit_softcap or spec.logit_scale != 1.0:
            what = tapes.Logits(width=spec.vocab_size, scale=spec.logit_scale, cap=spec.logit_softcap)
            tape.add(tapes.LOGITS, what, tail=True)
        self._weights += ends.head.nbytes + ends.norm.nbytes
        self._struct = tape.finished(self.threads)
        self._check()

    def step(self, tokens: Tensor, position: int, logits: Tensor | None, should_stop: ShouldStop | None = None) -> bool:
        """Read tokens, int32 [at most `rows`], that come at `position`; False where it was stopped on the way.

        Args:
            logits: float32 [1, vocabulary] for those of the last token, [tokens, vocabulary] for all, None for none.

        Raises:
            CorruptFile: the compiled program refuses the step: a token that the model does not know, a position behind
                the end of the cache, or memory of another size.
        """
        assert self._struct is not None
        rows = len(tokens)
        if tokens.dtype != torch.int32 or (logits is not None and logits.dtype != torch.float32):
            raise ValueError("tokens are int32 and logits float32")
        wanted = tapes.NO_LOGITS
        if logits is not None:
            wanted = tapes.LAST_LOGITS if len(logits) == 1 else tapes.ALL_LOGITS
        raised: list[BaseException] = []

        def ask() -> int:
            try:
                return int(should_stop is not None and should_stop())
            except BaseException as error:  # noqa: BLE001 - it cannot pass through compiled code, so it waits
                raised.append(error)
                return 1

        callback = tapes.ShouldStop(ask) if should_stop is not None else None
        step = tapes.Step(
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
        """Ask the compiled program whether it would compute the longest step at the end of the cache."""
        assert self._struct is not None
        tokens = torch.zeros(self.rows, dtype=torch.int32)
        logits = torch.empty(1, self.spec.vocab_size)
        # The cache is rounded up; tables of positions end where the context does.
        ends = [len(table.cosine) for table in self._rotations[0].values()]
        position = max(0, min([self.context, *ends]) - self.rows)
        rows = min([self.rows, *ends])
        step = tapes.Step(memory(tokens), rows, position, tapes.LAST_LOGITS, logits=memory(logits))
        checked(self._library.bw_check(ctypes.byref(self._struct), ctypes.byref(step)))

    def turn_for(self, length: int) -> bool:
        """Choose the rotations for a text of so many tokens; whether what is in the cache was turned otherwise."""
        which = int(self.spec.short_context > 0 and length > self.spec.short_context)
        if which == self._which:
            return False
        for what, name in self._turned:
            table = self._rotations[which][name]
            what.cosine, what.sine = memory(table.cosine), memory(table.sine)
        self._which = which
        return True

    def profile(self, on: bool) -> None:
        """Whether `spent` gathers nanoseconds by kind of operation."""
        assert self._struct is not None
        self._struct.spent = memory(self.spent) if on else Memory()
        self.spent.zero_()

    def _attention(self, weights: BlockWeights) -> None:
        spec, tape, modules = self.spec, self._tape, self.spec.architecture.modules
        queries, keys = spec.query_size, spec.key_size
        qkv = tape.buffer("qkv", queries + 2 * keys)
        columns = {"attn_qkv": 0, "attn_q": 0, "attn_k": queries, "attn_v": queries + keys}
        parts = [(weights.matrices[modules[name]], qkv, column) for name, column in columns.items() if name in modules]
        tape.linear(parts, self._normed(self._norm(weights, "attn_norm"), [part[0] for part in parts]))
        output = weights.matrices[modules["attn_output"]]
        reads = tape.reads(tape.buffer("attention", queries), [output])
        what = self._heads(qkv, weights, reads)
        tape.add(tapes.HEADS, what, reads, weights, self._caches[-1])
        tape.add(tapes.ATTEND, what)
        tape.add(tapes.JOIN, what)
        self._into_residual(output, reads, self._norm(weights, "post_attention_norm"))

    def _heads(self, qkv: Tensor, weights: BlockWeights, reads: tapes.Reads) -> tapes.Heads:
        spec = self.spec
        block = spec.blocks[len(self._caches)]
        queries, keys = spec.query_size, spec.key_size
        cache = [torch.empty(self.context * keys, dtype=self._dtype) for _ in range(2)]
        self._caches.append((cache[0], cache[1]))
        turned = None if block.rope is None else self._rotations[0][block.rope]
        what = tapes.Heads(
            heads=spec.num_heads,
            groups=spec.num_kv_heads,
            size=spec.head_dim,
            rotary=0 if turned is None else 2 * turned.cosine.shape[1],
            context=self.context,
            halves=int(self._dtype == torch.float16),
            window=block.window,
            whole=int(spec.architecture.qk_norm_whole),
            epsilon=spec.epsilon,
            scale=spec.attention_scale,
            cap=spec.attention_softcap,
            splits=self._partial.shape[0],
            q=memory(qkv),
            k=memory(qkv, queries),
            v=memory(qkv, queries + keys),
            stride=qkv.shape[1],
            q_norm=_optional(self._norm(weights, "attn_q_norm")),
            k_norm=_optional(self._norm(weights, "attn_k_norm")),
            cosine=_optional(None if turned is None else turned.cosine),
            sine=_optional(None if turned is None else turned.sine),
            keys=memory(cache[0]),
            values=memory(cache[1]),
            partial=memory(self._partial),
            out=memory(reads.buffer),
            targets=reads.targets,
        )
        if block.rope is not None:
            self._turned.append((what, block.rope))
        return what

    def _norm(self, weights: BlockWeights, name: str) -> Tensor | None:
        """Return the weights of the norm that a GGUF file calls `name`, or None if the architecture has none."""
        return weights.norms.get(self.spec.architecture.modules.get(name, ""))

    def _mlp(self, weights: BlockWeights) -> None:
        spec, tape, modules = self.spec, self._tape, self.spec.architecture.modules
        both = tape.buffer("gates", 2 * spec.intermediate_size)
        columns = {"ffn_gate": 0, "ffn_up": spec.intermediate_size if "ffn_gate" in modules else 0}
        parts = [(weights.matrices[modules[name]], both, column) for name, column in columns.items() if name in modules]
        tape.linear(parts, self._normed(self._norm(weights, "ffn_norm"), [part[0] for part in parts]))
        down = weights.matrices[modules["ffn_down"]]
        reads = tape.reads(tape.buffer("gated", spec.intermediate_size), [down])
        what = tapes.Gate(
            function=spec.activation,
            width=spec.intermediate_size,
            gate=memory(both),
            up=memory(both, spec.intermediate_size),
            stride=both.shape[1],
            out=memory(reads.buffer),
            targets=reads.targets,
        )
        tape.add(tapes.GATE, what, reads)
        self._into_residual(down, reads, self._norm(weights, "post_ffw_norm"))

    def _into_residual(self, matrix: Matrix, reads: tapes.Reads, after: Tensor | None) -> None:
        """Add a product to x: at once, or where it is normed or scaled before, with the next operation on rows."""
        if after is None and self.spec.residual_scale == 1.0:
            self._tape.linear([(matrix, self._x, 0)], reads, add=True)
            return
        y = self._tape.buffer("y", self.spec.hidden_size)
        self._tape.linear([(matrix, y, 0)], reads)
        self._pending = (y, after)

    def _normed(self, norm: Tensor | None, readers: list[Matrix]) -> tapes.Reads:
        """x with its norm, or as it is where the architecture has none, for these matrices."""
        out = self._x if norm is None else self._tape.buffer("normed", self.spec.hidden_size)
        reads = self._tape.reads(out, readers)
        self._rows_op(norm, out, reads)
        return reads

    def _rows_op(self, before: Tensor | None, out: Tensor, reads: tapes.Reads, *, tail: bool = False) -> None:
        spec, (y, after) = self.spec, self._pending
        self._pending = (None, None)
        what = tapes.Rows(
            width=spec.hidden_size,
            epsilon=spec.epsilon,
            scale=spec.residual_scale,
            x=memory(self._x),
            y=_optional(y),
            after=_optional(after),
            before=_optional(before),
            out=memory(out),
            targets=reads.targets,
        )
        self._tape.add(tapes.ROWS, what, after, before, reads, tail=tail)


def _optional(tensor: Tensor | None) -> Memory:
    """The memory of a tensor, or none."""
    return Memory() if tensor is None else memory(tensor)
