"""Triton kernels of quantized linear layers: a product for few rows, one for many rows, and dequantization.

All three use the same layout, packed by `core.inference.backends.triton_layer`. With b the bits of a plane:

    low     int32 [outputs, inputs / 32 * b]: each 32 inputs of an output take b words. Input 32 t + j b + s is in the
            bits j b and up of word t b + s, so that words read by neighbouring threads hold neighbouring inputs, and
            the 16 bytes read by one thread share one scale.
    high    int32 [outputs, inputs / 32], for 3 bits only, whose `low` holds 2 bits: the third bit of input
            32 t + 2 j + s is bit j + 16 s of word t.
    scales  [outputs, groups], float16 or float32.
    offsets [outputs, groups]: uint8 zero points or float32 values of level 0; not read if `GRID` is 0.

Imports triton, so import this module only if triton is installed.
"""

# The functions below are compiled by triton, never called from Python; their arguments are tensors and pointers.
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False
from __future__ import annotations

import triton
import triton.language as tl

CONSTANT_ZERO, ZERO_POINTS, LOWEST = 0, 1, 2
"""Values of `GRID`: scale * (q - 2^(b-1)); scale * (q - zero point); scale * q + lowest."""


@triton.jit
def _offset_at(offsets, index, mask, BITS: tl.constexpr, GRID: tl.constexpr):
    """Return the value to subtract from `_biased`: 2^23 plus the zero point, exact in float32; 2^23 for GRID 2."""
    if GRID == 1:
        offset = tl.load(offsets + index, mask=mask, other=0).to(tl.float32) + 8388608.0
    elif GRID == 0:
        offset = 8388608.0 + (1 << (BITS - 1))
    else:
        offset = 8388608.0
    return offset


@triton.jit
def _biased(words, tops, PLANE: tl.constexpr, BITS: tl.constexpr):
    """Return 2^23 + q as float32 for the integers q of one plane, by setting the lowest bits of the mantissa.

    This takes one shift and one three-way logical operation, which have four times the throughput of a conversion from
    integer to float.
    """
    if BITS == 3:  # noqa: SIM108 - evaluated at compile time; the other branch is not compiled
        q = ((words >> (PLANE * 2)) & 3) | (((tops >> PLANE) & 1) << 2)
    else:
        q = (words >> (PLANE * BITS)) & ((1 << BITS) - 1)
    return (q | 0x4B000000).to(tl.float32, bitcast=True)


@triton.jit
def _group_of(block, part: tl.constexpr, GROUP: tl.constexpr):
    """Return the group of the inputs from 32 * block + part; GROUP 0 means one group per row."""
    if GROUP == 0:
        group = block * 0
    elif GROUP == 16:
        group = block * 2 + part // 16
    else:
        group = block // (GROUP // 32)
    return group


@triton.jit
def _words_at(low, high, line, w, blocks, mask, BITS: tl.constexpr):
    """Load the words `w` of the outputs `line` [n, 1] from `low`, and from `high` shifted so that plane p is bit p.

    `high` is used for 3 bits only; for other bit widths the second value is a placeholder.
    """
    LOW: tl.constexpr = 2 if BITS == 3 else BITS
    words = tl.load(low + line * (blocks * LOW) + w[None, :], mask=mask, other=0)
    tops = words
    if BITS == 3:
        tops = tl.load(high + line * blocks + (w // LOW)[None, :], mask=mask, other=0) >> ((w % LOW) * 16)[None, :]
    return words, tops


@triton.jit
def _grid_at(
    scales, offsets, line, block, part: tl.constexpr, groups, mask,
    BITS: tl.constexpr, GROUP: tl.constexpr, GRID: tl.constexpr,
):  # fmt: skip
    """Load the index, the scale and the `_offset_at` of the group of inputs 32 * block + part of outputs `line`."""
    index = line * groups + _group_of(block, part, GROUP)[None, :]
    scale = tl.load(scales + index, mask=mask, other=0).to(tl.float32)
    return index, scale, _offset_at(offsets, index, mask, BITS, GRID)


@triton.jit(do_not_specialize=["rows"])
def few_rows(
    x, y, low, high, scales, offsets, bias, rows, outputs, blocks, groups,
    BITS: tl.constexpr, GROUP: tl.constexpr, GRID: tl.constexpr, BIAS: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    """Compute y = x W^T + bias for few rows; each program computes BLOCK_N outputs of one row.

    Does not use matrix products of tiles: each thread sums in float32 along the words of an output, and the sums are
    reduced across threads once at the end. The order of summation is fixed, so that equal inputs give equal outputs.

    Args:
        x: inputs [rows, 32 * blocks], contiguous.
        y: outputs [rows, outputs], contiguous.
        rows, outputs, blocks, groups: sizes; a block is 32 inputs.
        GROUP: inputs per group, 16 or a multiple of 32; 0 for one group per row.
        BLOCK_N: outputs per program.
        BLOCK_W: words read at once; a power of two.
    """
    LOW: tl.constexpr = 2 if BITS == 3 else BITS
    STEP: tl.constexpr = 16 if GROUP == 16 else 32
    program = tl.program_id(0)
    row = (program % rows).to(tl.int64)
    n = (program // rows) * BLOCK_N + tl.arange(0, BLOCK_N)
    here = n < outputs
    width = blocks * LOW
    line = n.to(tl.int64)[:, None]
    lane = tl.arange(0, BLOCK_W)
    total = tl.zeros([BLOCK_N, BLOCK_W], dtype=tl.float32)
    for start in range(0, width, BLOCK_W):
        w = start + lane
        inside = w < width
        mask = here[:, None] & inside[None, :]
        words, tops = _words_at(low, high, line, w, blocks, mask, BITS)
        block = w // LOW
        first = x + row * (blocks * 32) + block * 32 + w % LOW
        for part in tl.static_range(0, 32, STEP):
            index, scale, offset = _grid_at(scales, offsets, line, block, part, groups, mask, BITS, GROUP, GRID)
            piece = tl.zeros([BLOCK_N, BLOCK_W], dtype=tl.float32)
            sums = tl.zeros([BLOCK_W], dtype=tl.float32)
            for plane in tl.static_range(part // LOW, (part + STEP) // LOW):
                value = tl.load(first + plane * LOW, mask=inside, other=0).to(tl.float32)
                piece += (_biased(words, tops, plane, BITS) - offset) * value[None, :]
                if GRID == 2:
                    sums += value
            total += piece * scale
            if GRID == 2:
                lowest = tl.load(offsets + index, mask=mask, other=0).to(tl.float32)
                total += lowest * sums[None, :]
    result = tl.sum(total, axis=1)
    if BIAS:
        result += tl.load(bias + n, mask=here, other=0).to(tl.float32)
    tl.store(y + row * outputs + n, result.to(y.dtype.element_ty), mask=here)


@triton.jit(do_not_specialize=["rows"])
def many_rows(
    x, y, low, high, scales, offsets, bias, rows, outputs, blocks, groups,
    BITS: tl.constexpr, GROUP: tl.constexpr, GRID: tl.constexpr, BIAS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    """Compute y = x W^T + bias in tiles; words are read once, and each plane is one matrix product.

    Weights are rounded to the dtype of `x` before the product, and sums are kept in float32. float32 is multiplied as
    float32, not TF32. Arguments as in `few_rows`; BLOCK_M, BLOCK_N and BLOCK_W are at least 16.
    """
    LOW: tl.constexpr = 2 if BITS == 3 else BITS
    STEP: tl.constexpr = 16 if GROUP == 16 else 32
    program = tl.program_id(0)
    # Consecutive programs share a tile of weights, which is larger than a tile of rows.
    tiles = tl.cdiv(rows, BLOCK_M)
    m = (program % tiles) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = (program // tiles) * BLOCK_N + tl.arange(0, BLOCK_N)
    there, here = m < rows, n < outputs
    width = blocks * LOW
    line = n.to(tl.int64)[:, None]
    lane = tl.arange(0, BLOCK_W)
    total = tl.zeros([BLOCK_M, BLOCK_N], dtype=tl.float32)
    for start in range(0, width, BLOCK_W):
        w = start + lane
        inside = w < width
        # [BLOCK_N, BLOCK_W]: a thread holds neighbouring inputs, and writes them to shared memory together.
        mask = here[:, None] & inside[None, :]
        words, tops = _words_at(low, high, line, w, blocks, mask, BITS)
        block = w // LOW
        first = x + (m.to(tl.int64) * (blocks * 32))[:, None] + (block * 32 + w % LOW)[None, :]
        needed = there[:, None] & inside[None, :]
        for part in tl.static_range(0, 32, STEP):
            index, scale, offset = _grid_at(scales, offsets, line, block, part, groups, mask, BITS, GROUP, GRID)
            for plane in tl.static_range(part // LOW, (part + STEP) // LOW):
                weight = (_biased(words, tops, plane, BITS) - offset) * scale
                if GRID == 2:
                    weight += tl.load(offsets + index, mask=mask, other=0).to(tl.float32)
                value = tl.load(first + plane * LOW, mask=needed, other=0)
                total = tl.dot(value, tl.trans(weight.to(x.dtype.element_ty)), total, input_precision="ieee")
    if BIAS:
        total += tl.load(bias + n, mask=here, other=0).to(tl.float32)[None, :]
    into = y + (m.to(tl.int64) * outputs)[:, None] + n[None, :]
    tl.store(into, total.to(y.dtype.element_ty), mask=there[:, None] & here[None, :])


@triton.jit
def whole_weight(
    y, low, high, scales, offsets, outputs, blocks, groups,
    BITS: tl.constexpr, GROUP: tl.constexpr, GRID: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    """Dequantize the weight into y [outputs, 32 * blocks]; used if there are enough rows for a dense product."""
    LOW: tl.constexpr = 2 if BITS == 3 else BITS
    STEP: tl.constexpr = 16 if GROUP == 16 else 32
    width = blocks * LOW
    tiles = tl.cdiv(width, BLOCK_W)
    program = tl.program_id(0)
    n = (program // tiles) * BLOCK_N + tl.arange(0, BLOCK_N)
    w = (program % tiles) * BLOCK_W + tl.arange(0, BLOCK_W)
    line = n.to(tl.int64)[:, None]
    mask = (n < outputs)[:, None] & (w < width)[None, :]
    words, tops = _words_at(low, high, line, w, blocks, mask, BITS)
    block = w // LOW
    first = y + line * (blocks * 32) + (block * 32 + w % LOW)[None, :]
    for part in tl.static_range(0, 32, STEP):
        index, scale, offset = _grid_at(scales, offsets, line, block, part, groups, mask, BITS, GROUP, GRID)
        for plane in tl.static_range(part // LOW, (part + STEP) // LOW):
            weight = (_biased(words, tops, plane, BITS) - offset) * scale
            if GRID == 2:
                weight += tl.load(offsets + index, mask=mask, other=0).to(tl.float32)
            tl.store(first + plane * LOW, weight.to(y.dtype.element_ty), mask=mask)
