"""The op graph of the native program: operations as the structs of `program.h`, and the buffers that they share.

A graph is built once and run for every step. It keeps alive everything that its structs point to.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, Structure, c_float, c_int32, c_int64, c_void_p
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from core.inference.native import library as kernels
from core.inference.native.library import BwActivations, BwMatrix, Memory, memory
from core.inference.native.matrix import Matrix, aligned

PARTS = 4
EMBEDDING, RMSNORM, MATMUL, GATED_ACTIVATION, QK_NORM_ROPE, ATTENTION, SPLIT_KV_REDUCE, LOGITS = range(8)
KINDS = (
    "embedding", "rmsnorm", "matmul", "gated_activation", "qk_norm_rope", "attention", "split_kv_reduce", "logits",
)  # fmt: skip
NO_LOGITS, LAST_LOGITS, ALL_LOGITS = range(3)
SPLIT_KV_ROWS = 16
_TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}

ShouldStop = ctypes.CFUNCTYPE(c_int32)


class Op(Structure):
    """`bw_op`."""

    _fields_ = [("kind", c_int32), ("logit_rows_only", c_int32), ("args", Memory)]


class QuantizedInputs(Structure):
    """`bw_quantized_inputs`."""

    _fields_ = [
        ("count", c_int32),
        ("unused", c_int32),
        ("to", POINTER(BwActivations) * PARTS),
        ("order", Memory * PARTS),
    ]


class Embedding(Structure):
    """`bw_embedding`."""

    _fields_ = [
        ("weights", c_int32),
        ("hidden_size", c_int32),
        ("scale", c_float),
        ("vocab_size", c_int32),
        ("table", Memory),
        ("matrix", POINTER(BwMatrix)),
        ("x", Memory),
    ]


class RmsNorm(Structure):
    """`bw_rmsnorm`."""

    _fields_ = [
        ("hidden_size", c_int32),
        ("epsilon", c_float),
        ("scale", c_float),
        ("unused", c_int32),
        ("x", Memory),
        ("y", Memory),
        ("post_norm", Memory),
        ("norm", Memory),
        ("out", Memory),
        ("quantized_inputs", QuantizedInputs),
    ]


class Matmul(Structure):
    """`bw_matmul`."""

    _fields_ = [
        ("count", c_int32),
        ("add", c_int32),
        ("matrix", POINTER(BwMatrix) * PARTS),
        ("input", POINTER(BwActivations) * PARTS),
        ("out", Memory * PARTS),
        ("stride", c_int64 * PARTS),
    ]


class GatedActivation(Structure):
    """`bw_gated_activation`."""

    _fields_ = [
        ("activation", c_int32),
        ("intermediate_size", c_int32),
        ("gate", Memory),
        ("up", Memory),
        ("stride", c_int64),
        ("out", Memory),
        ("quantized_inputs", QuantizedInputs),
    ]


class Attention(Structure):
    """`bw_attention`."""

    _fields_ = [
        ("num_heads", c_int32),
        ("num_kv_heads", c_int32),
        ("head_dim", c_int32),
        ("rotary_dim", c_int32),
        ("context_length", c_int32),
        ("fp16_cache", c_int32),
        ("window", c_int32),
        ("norm_all_heads", c_int32),
        ("epsilon", c_float),
        ("scale", c_float),
        ("softcap", c_float),
        ("max_splits", c_int32),
        ("q", Memory),
        ("k", Memory),
        ("v", Memory),
        ("stride", c_int64),
        ("q_norm", Memory),
        ("k_norm", Memory),
        ("cos", Memory),
        ("sin", Memory),
        ("key_cache", Memory),
        ("value_cache", Memory),
        ("partial", Memory),
        ("out", Memory),
        ("quantized_inputs", QuantizedInputs),
    ]


class Logits(Structure):
    """`bw_logits`."""

    _fields_ = [("vocab_size", c_int32), ("scale", c_float), ("softcap", c_float)]


class ProgramStruct(Structure):
    """`bw_program`."""

    _fields_ = [
        ("ops", Memory),
        ("activations", Memory),
        ("count", c_int32),
        ("activation_count", c_int32),
        ("logit_activations", c_int32),
        ("threads", c_int32),
        ("op_nanoseconds", Memory),
        ("scratch", Memory),
        ("scratch_size", c_int64),
    ]


class Step(Structure):
    """`bw_step`."""

    _fields_ = [
        ("tokens", Memory),
        ("rows", c_int32),
        ("position", c_int32),
        ("wanted", c_int32),
        ("unused", c_int32),
        ("logits", Memory),
        ("should_stop", c_void_p),
    ]


STRUCTS = (
    BwMatrix, BwActivations, Op, QuantizedInputs, Embedding, RmsNorm, Matmul, GatedActivation, Attention, Logits,
    ProgramStruct, Step,
)  # fmt: skip
"""All structs, in the order of `bw_struct_size`."""


def _order_of(struct: BwMatrix) -> bytes:
    """Return the bytes of the input order of an act-order matrix; empty for the natural order."""
    return ctypes.string_at(struct.order.at, struct.order.bytes) if struct.order.at else b""


@dataclass(frozen=True, eq=False)
class MatmulInput:
    """A buffer that matmuls read: the floats, and the quantized activations that each matrix needs."""

    buffer: Tensor
    forms: tuple[tuple[Matrix, BwActivations], ...]
    quantized_inputs: QuantizedInputs

    def form(self, matrix: Matrix) -> BwActivations:
        """Return the activations for a matrix."""
        return next(form for reader, form in self.forms if reader is matrix)


@dataclass(eq=False)
class OpGraph:
    """Operations in the order in which they run, and their buffers. Mutable until `finished`.

    Attributes:
        rows: most tokens of one step.
        ops: the operations.
        kept: objects that the operations point to.
    """

    rows: int
    ops: list[Op] = field(default_factory=list)
    kept: list[Any] = field(default_factory=list)
    _buffers: dict[str, Tensor] = field(default_factory=dict)
    _forms: dict[tuple[Any, ...], BwActivations] = field(default_factory=dict)
    _logit_forms: dict[tuple[Any, ...], BwActivations] = field(default_factory=dict)

    def buffer(self, name: str, columns: int) -> Tensor:
        """Return the float32 buffer [rows, columns] of a name; blocks share buffers by name."""
        if name not in self._buffers:
            self._buffers[name] = torch.zeros(self.rows, columns)
        return self._buffers[name]

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers and quantized activations."""
        spaces = [part for part in self.kept if isinstance(part, Tensor)]
        return sum(part.nbytes for part in (*self._buffers.values(), *spaces))

    def matmul_input(self, buffer: Tensor, readers: Sequence[Matrix], *, logit_rows_only: bool = False) -> MatmulInput:
        """Return the input of these matrices from a buffer.

        Matrices with equal requirements share quantized activations, and all blocks share their memory.
        """
        forms: list[tuple[Matrix, BwActivations]] = []
        quantized = QuantizedInputs()
        seen: dict[tuple[int, int, bytes], BwActivations] = {}
        table = self._logit_forms if logit_rows_only else self._forms
        for matrix in readers:
            struct = matrix.struct
            need = (struct.block, struct.planes if struct.block else 0, _order_of(struct))
            if need not in seen:
                key = (buffer.data_ptr(), *need[:2], sum(other[:2] == need[:2] for other in seen))
                if key not in table:
                    table[key] = self._activations(buffer, struct)
                seen[need] = table[key]
                if struct.block:
                    quantized.to[quantized.count] = ctypes.pointer(table[key])
                    quantized.order[quantized.count] = struct.order
                    quantized.count += 1
            forms.append((matrix, seen[need]))
        return MatmulInput(buffer, tuple(forms), quantized)

    def _activations(self, buffer: Tensor, struct: BwMatrix) -> BwActivations:
        form = BwActivations(x=memory(buffer), rows=self.rows, in_features=struct.in_features, block=struct.block)
        form.planes = struct.planes if struct.block else 0
        if struct.block:
            space = aligned(kernels.activation_bytes(form))
            self.kept.append(space)
            kernels.place(form, space)
        return form

    def add(self, kind: int, args: Structure, *keep: Any, logit_rows_only: bool = False) -> None:
        """Append an operation and keep the objects that it points to."""
        self.kept.extend((args, *keep))
        self.ops.append(Op(kind, int(logit_rows_only), Memory(ctypes.addressof(args), ctypes.sizeof(args))))

    def matmul(
        self,
        parts: Sequence[tuple[Matrix, Tensor | None, int]],
        source: MatmulInput,
        *,
        add: bool = False,
        logit_rows_only: bool = False,
    ) -> None:
        """Append matmuls of one input.

        Args:
            parts: (matrix, output buffer, first column in it) for each; without a buffer the output is the logits.
            source: the input.
            add: add to the output instead of overwriting it.
            logit_rows_only: compute only the rows whose logits are wanted.
        """
        args = Matmul(count=len(parts), add=int(add))
        for number, (matrix, out, column) in enumerate(parts):
            args.matrix[number] = ctypes.pointer(matrix.struct)
            args.input[number] = ctypes.pointer(source.form(matrix))
            args.out[number] = Memory() if out is None else memory(out, column)
            args.stride[number] = matrix.struct.out_features if out is None else out.shape[1]
        self.add(MATMUL, args, source, *(part[0] for part in parts), logit_rows_only=logit_rows_only)

    def finished(self, threads: int) -> ProgramStruct:
        """Return the finished graph for `bw_run`."""
        ops = (Op * len(self.ops))(*self.ops)
        forms = [*self._forms.values(), *self._logit_forms.values()]
        pointers = (POINTER(BwActivations) * len(forms))(*map(ctypes.pointer, forms))
        count = kernels.load().bw_scratch_size
        count.restype, count.argtypes = c_int64, [POINTER(Op), c_int32]
        size = kernels.checked(int(count(ops, len(ops))))
        scratch = aligned(4 * size * threads).view(torch.float32)
        self.kept.extend((ops, pointers, scratch, *forms))
        return ProgramStruct(
            ops=Memory(ctypes.addressof(ops), ctypes.sizeof(ops)),
            activations=Memory(ctypes.addressof(pointers), ctypes.sizeof(pointers)),
            count=len(self.ops),
            activation_count=len(forms),
            logit_activations=len(self._logit_forms),
            threads=threads,
            scratch=memory(scratch),
            scratch_size=size,
        )


def embedding(matrix: Matrix | None, table: Tensor | None, vocab_size: int, scale: float, x: Tensor) -> Embedding:
    """Return the lookup of tokens in a table [vocab_size, hidden_size], or in the rows of a packed matrix."""
    args = Embedding(hidden_size=x.shape[1], vocab_size=vocab_size, scale=scale, x=memory(x))
    if matrix is not None:
        args.matrix = ctypes.pointer(matrix.struct)
    elif table is not None:
        args.weights, args.table = _TYPES[table.dtype], memory(table)
    return args
