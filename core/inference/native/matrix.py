"""Weight matrices in the layout of the compiled kernels, packed from quantized layers or from 16- or 32-bit weights.

The layout itself is described in source/linear_weights.h.
"""

from __future__ import annotations

from collections.abc import Iterable
from ctypes import byref
from dataclasses import dataclass, field

import torch
from torch import Tensor

from core.errors import BadInput
from core.formats.gguf.blocks import BlockLinear
from core.formats.gguf.code_books import decoded
from core.formats.quantized import QuantizedLinear
from core.formats.stored import StoredLayer
from core.inference.backends.backend import LayerFacts
from core.inference.native import library
from core.inference.native.library import ALIGNMENT, BwActivations, BwMatrix, Memory
from core.schemes import LayerScheme

TILE = 16
BLOCK = 32
"""Inputs of the activations that share a scale; 16 for weights with group size 16 (K types of GGUF)."""
_CODE_MIDDLE = 128
"""Packed integer of the value 0 of a code book."""
_MOST_ROWS = 4096
"""Most rows of one call of the kernels."""
_DENSE = {torch.float32: library.F32, torch.bfloat16: library.BF16, torch.float16: library.F16}


@dataclass(frozen=True, eq=False)
class Matrix:
    """A packed weight matrix and its memory.

    Attributes:
        struct: for the kernels; valid as long as this object exists.
        out_features, in_features: shape of the matrix.
        tensors: the memory that `struct` points to.
    """

    struct: BwMatrix
    out_features: int
    in_features: int
    tensors: tuple[Tensor, ...] = field(repr=False)

    @property
    def nbytes(self) -> int:
        """Bytes in memory, including scales and bias."""
        return sum(tensor.nbytes for tensor in self.tensors)

    def dequantize(self) -> Tensor:
        """Return the weight that the kernels multiply by, float32 [out_features, in_features] in original order."""
        weight = torch.empty(self.out_features, self.in_features, dtype=torch.float32)
        for number in range(self.out_features):
            row = weight[number]
            library.checked(library.load().bw_matrix_row(byref(self.struct), number, row.data_ptr(), row.nbytes))
        return weight


def refusal(facts: LayerFacts) -> str:
    """Return why a layer cannot be packed, as the end of a sentence; "" if it can."""
    if facts.inputs % BLOCK:
        return f"its {facts.inputs} inputs are not a multiple of {BLOCK}"
    group = facts.scheme.group_of(facts.inputs)
    if facts.scheme.quantized and group != 16 and group % BLOCK:
        return f"its group size {group} is not a multiple of {BLOCK}"
    return ""


def pack(layer: StoredLayer, bias: Tensor | None = None, planes: int = 1) -> Matrix:
    """Pack a quantized layer.

    Args:
        layer: `QuantizedLinear` or `BlockLinear`; copied.
        bias: any float dtype, [out_features], or None.
        planes: int8 planes of the activations: 1 for 8 bits, 2 for about 15 bits, which agrees with float32 to four
            digits.

    Raises:
        BadInput: the kernels have no layout for it; `refusal` checks this in advance.
        MissingDependency: the kernels are not available.
    """
    return pack_pieces([layer], layer.ints.shape[0], bias, planes)


def pack_pieces(
    pieces: Iterable[StoredLayer], out_features: int, bias: Tensor | None = None, planes: int = 1
) -> Matrix:
    """Pack a quantized layer from pieces of its rows, of which only one is in memory at a time.

    Args:
        pieces: of one scheme; each but the last has a multiple of 16 rows. Several pieces cannot have act-order.
        out_features: total number of rows.
        bias: as for `pack`.
        planes: as for `pack`.
    """
    packing: _Packing | None = None
    for piece in pieces:
        in_features = piece.ints.shape[1]
        if packing is None:
            why = refusal(LayerFacts(piece.name, out_features, in_features, piece.scheme))
            if why:
                raise BadInput(
                    f"{piece.name} cannot be packed for the native kernels: {why}.", "Use another backend for it."
                )
            group, bits = piece.scheme.group_of(in_features), _packed_bits(piece.scheme, in_features)
            struct = BwMatrix(
                weights=library.GRID,
                bits=bits,
                out_features=out_features,
                in_features=in_features,
                group_size=group,
                block=min(group, BLOCK),
                planes=planes,
            )
            packing = _Packing(struct, _order(piece), bias)
        grid = _block_grid(struct, piece) if isinstance(piece, BlockLinear) else _plain_grid(struct, piece)
        packing.add(_packed_integers(piece), grid)
    return _whole(packing)


def dense(weight: Tensor, bias: Tensor | None = None) -> Matrix:
    """Pack a weight without quantization, float32, bfloat16 or float16 [out_features, in_features].

    Activations stay float32.

    Raises:
        BadInput: another dtype, or inputs that are not a multiple of 32.
        MissingDependency: the kernels are not available.
    """
    return dense_pieces([weight], weight.shape[0], bias)


def dense_pieces(pieces: Iterable[Tensor], out_features: int, bias: Tensor | None = None) -> Matrix:
    """Pack an unquantized weight from pieces of its rows; each but the last has a multiple of 16 rows."""
    packing: _Packing | None = None
    for piece in pieces:
        in_features = piece.shape[1]
        if packing is None:
            if piece.dtype not in _DENSE or in_features % BLOCK:
                raise BadInput(
                    f"The kernels have no layout for {piece.dtype} with {in_features} inputs.", "Use another backend."
                )
            struct = BwMatrix(
                weights=_DENSE[piece.dtype], out_features=out_features, in_features=in_features, group_size=in_features
            )
            packing = _Packing(struct, None, bias)
        packing.add(piece, {})
    return _whole(packing)


def linear(matrix: Matrix, x: Tensor, threads: int = 0) -> Tensor:
    """Compute x W^T + bias.

    Args:
        matrix: the weight.
        x: float32 [rows, in_features], on the CPU.
        threads: number of threads, 0 for that of torch.

    Returns:
        float32 [rows, out_features].

    Raises:
        ValueError: x has another number of inputs, dtype or device.
    """
    if x.dim() != 2 or x.shape[1] != matrix.in_features or x.dtype != torch.float32 or x.device.type != "cpu":
        raise ValueError(f"float32 rows of {matrix.in_features} inputs are needed, not {x.dtype} {tuple(x.shape)}")
    x = x.contiguous()
    rows = x.shape[0]
    y = torch.empty(rows, matrix.out_features, dtype=torch.float32)
    if not rows:
        return y
    struct = matrix.struct
    for first in range(0, rows, _MOST_ROWS):
        part, into = x[first : first + _MOST_ROWS], y[first : first + _MOST_ROWS]
        to = BwActivations(library.memory(part), len(part), matrix.in_features, struct.block, struct.planes)
        space = aligned(library.activation_bytes(to))
        library.place(to, space)
        count = min(threads or torch.get_num_threads(), library.MAX_THREADS)
        kernels = library.load()
        library.checked(kernels.bw_multiply(byref(struct), byref(to), into.data_ptr(), into.nbytes, count))
    return y


def aligned(nbytes: int) -> Tensor:
    """Return a uint8 tensor [nbytes] whose address is a multiple of 64."""
    whole = torch.empty(nbytes + ALIGNMENT, dtype=torch.uint8)
    start = -whole.data_ptr() % ALIGNMENT
    return whole[start : start + nbytes]


def _packed_bits(scheme: LayerScheme, in_features: int) -> int:
    """Return the bits of the packed integers: those of the scheme, or more where the kernels have no such layout."""
    if scheme.code_book:
        return 8
    # Three bits are packed 32 inputs at a time.
    return 4 if scheme.group_of(in_features) == 16 and scheme.bits == 3 else scheme.bits


def _packed_integers(layer: StoredLayer) -> Tensor:
    """Return the integers of a layer, uint8 [out, in]; with a code book, its values, which have 8 bits."""
    if layer.scheme.code_book:
        return decoded(layer.ints, layer.scheme.type).add_(_CODE_MIDDLE).to(torch.uint8)
    return layer.ints.to(torch.uint8)


class _Packing:
    """A matrix that is packed from pieces of its rows."""

    def __init__(self, struct: BwMatrix, order: Tensor | None, bias: Tensor | None) -> None:
        self._struct, self._rows = struct, 0
        self._tensors = [aligned(library.checked(int(library.load().bw_data_bytes(byref(struct)))))]
        struct.data = library.memory(self._tensors[0])
        self._grid: dict[str, Tensor] = {}
        if order is not None:
            struct.order = self._kept(order.to(torch.int32).contiguous())
        if bias is not None:
            if tuple(bias.shape) != (struct.out_features,):
                raise BadInput(
                    f"A bias has the shape {list(bias.shape)}, and its layer {struct.out_features} outputs.", ""
                )
            struct.bias = self._kept(bias.detach().to("cpu", torch.float32).contiguous())

    def add(self, weights: Tensor, grid: dict[str, Tensor]) -> None:
        """Pack the next [rows, in_features], uint8 integers or floats, and their scales, zero points and minimums."""
        struct, first = self._struct, self._rows
        for name, part in grid.items():
            if name not in self._grid:
                tiles = -(-struct.out_features // TILE)
                space = aligned(tiles * part.shape[1] * TILE * part.element_size()).zero_().view(part.dtype)
                setattr(struct, name, self._kept(space))
                self._grid[name] = space.view(tiles, part.shape[1], TILE)
            _tile(part, self._grid[name][first // TILE :])
        weights = weights.detach().cpu().contiguous()
        self._rows += len(weights)
        address, nbytes = weights.data_ptr(), weights.nbytes
        library.checked(library.load().bw_pack(byref(struct), address, nbytes, first, len(weights)))

    def matrix(self) -> Matrix:
        """Return the matrix after all rows are packed."""
        if self._rows != self._struct.out_features:
            raise ValueError(f"{self._rows} rows of {self._struct.out_features} were packed")
        return Matrix(self._struct, self._struct.out_features, self._struct.in_features, tuple(self._tensors))

    def _kept(self, tensor: Tensor) -> Memory:
        self._tensors.append(tensor)
        return library.memory(tensor)


def _whole(packing: _Packing | None) -> Matrix:
    if packing is None:
        raise ValueError("a matrix without rows")
    return packing.matrix()


def _tile(values: Tensor, into: Tensor) -> None:
    """Copy [out_features, groups] to [tiles, groups, 16], leaving the padding after the last output unchanged."""
    out_features, groups = values.shape
    whole = out_features // TILE
    into[:whole].copy_(values[: whole * TILE].reshape(whole, TILE, groups).transpose(1, 2))
    if whole * TILE < out_features:
        into[whole, :, : out_features - whole * TILE].copy_(values[whole * TILE :].t())


def _order(layer: StoredLayer) -> Tensor | None:
    """Return the inputs sorted by group for an act-order layer, or None if they are sorted already."""
    g_idx = getattr(layer, "g_idx", None)
    if g_idx is None:
        return None
    order = torch.argsort(g_idx, stable=True)
    return None if torch.equal(order, torch.arange(len(order))) else order


def _plain_grid(struct: BwMatrix, layer: StoredLayer) -> dict[str, Tensor]:
    assert isinstance(layer, QuantizedLinear)
    middle = layer.scheme.levels // 2
    scales, zeros = layer.scales.cpu(), layer.zeros.cpu()
    if bool((zeros == middle).all()):
        struct.scales, struct.zero = library.SYMMETRIC, middle
        return {"scale": scales}
    struct.scales = library.ZEROS
    return {"scale": scales, "offset": zeros}


def _block_grid(struct: BwMatrix, layer: BlockLinear) -> dict[str, Tensor]:
    struct.zero = _CODE_MIDDLE if layer.scheme.code_book else layer.scheme.levels // 2
    d = layer.d.cpu()
    if layer.scales is not None:
        struct.scales, struct.super_block_size = library.NESTED, layer.type.block
        # The kernels read scales and minimums of a super-block together; missing minimums are zeros.
        m = torch.zeros_like(d) if layer.m is None else layer.m.cpu()
        steps = torch.stack([d, m], 2).flatten(1)
        mins = {} if layer.mins is None else {"offset": layer.mins.cpu()}
        return {"scale": layer.scales.cpu(), "steps": steps, **mins}
    if layer.m is None:
        struct.scales = library.SYMMETRIC
        return {"scale": d}
    struct.scales = library.MINIMUMS
    return {"scale": d, "offset": layer.m.cpu()}
