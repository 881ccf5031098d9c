"""The Triton kernels of quantized linear layers: a product with few rows, one with many, and the weight itself.

All three read the same layout (`core.inference.backends.triton_layer` packs it), with `b` the bits that a plane stores:

    low     int32 [outputs, inputs / 32 * b]: every 32 inputs of an output are b words; input 32 t + j b + s is in
            word t b + s, in its bits from j b on. So the words that neighbouring threads read together hold
            neighbouring inputs, and the 16 bytes that one thread reads share one scale.
    high    int32 [outputs, inputs / 32], of 3 bits only, whose `low` has 2: the third bit of input 32 t + 2 j + s is
            bit j + 16 s of word t.
    scales  [outputs, groups], float16 or float32.
    offsets [outputs, groups]: uint8 zero points, or float32 values of level 0; whatever where `GRID` is 0.

Knows nothing of torch, of modules and of which device is there. Imports triton: only where that is known to be there.
"""

# The functions below are read by triton's compiler and called by nobody: their types are those of tensors and pointers.
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False
from __future__ import annotations

import triton
import triton.language as tl

CONSTANT_ZERO, ZERO_POINTS, LOWEST = 0, 1, 2
"""Values of `GRID`: scale * (q - 2^(b-1)); scale * (q - zero point); scale * q + lowest."""


@triton.jit
def _offset_at(offsets, index, mask, BITS: tl.constexpr, GRID: tl.constexpr):
    """What is taken from `_biased`: the zero point and 2^23, which float32 holds exactly; of GRID 2 just 2^23."""
    if GRID == 1:
        offset = tl.load(offsets + index, mask=mask, other=0).to(tl.float32) + 8388608.0
    elif GRID == 0:
        offset = 8388608.0 + (1 << (BITS - 1))
    else:
        offset = 8388608.0
    return offset


@triton.jit
def _biased(words, tops, PLANE: tl.constexpr, BITS: tl.constexpr):
    """2^23 + q as float32, for the integers of one plane: q is set as the lowest bits of the fraction.

    One shift and one three-way logical operation, where a conversion of an integer has a quarter of their speed.
    """
    if BITS == 3:  # noqa: SIM108 - decided when it is compiled: the other branch is never looked at
        q = ((words >> (PLANE * 2)) & 3) | (((tops >> PLANE) & 1) << 2)
    else:
        q = (words >> (PLANE * BITS)) & ((1 << BITS) - 1)
    return (q | 0x4B000000).to(tl.float32, bitcast=True)


@triton.jit
def _group_of(block, part: tl.constexpr, GROUP: tl.constexpr):
    """The group of inputs 32 * block + part and following; GROUP 0 is one group a row."""
    if GROUP == 0:
        group = block * 0
    elif GROUP == 16:
        group = block * 2 + part // 16
    else:
        group = block // (GROUP // 32)
    return group


@triton.jit
def _words_at(low, high, line, w, blocks, mask, BITS: tl.constexpr):
    """Words `w` of the outputs `line` [n, 1]: those of `low`; those of `high`, where the bit of plane p is bit p.

    Only 3 bits have `high`: of other widths the second is the first, which nobody looks at.
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
    """Where the group of inputs 32 * block + part of the outputs `line` is; its scale; its `_offset_at`."""
    index = line * groups + _group_of(block, part, GROUP)[None, :]
    scale = tl.load(scales + index, mask=mask, other=0).to(tl.float32)
    return index, scale, _offset_at(offsets, index, mask, BITS, GRID)


@triton.jit(do_not_specialize=["rows"])
def few_rows(
    x, y, low, high, scales, offsets, bias, rows, outputs, blocks, groups,
    BITS: tl.constexpr, GROUP: tl.constexpr, GRID: tl.constexpr, BIAS: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    """y = x W^T + bias for a handful of rows: BLOCK_N outputs of one row a program, which reads all their weights.

    No product of tiles: sums in float32 along the words of an output, added up across threads once, at the end. Always
    in the same order, so that equal inputs have equal outputs.

    Args:
        x: [rows, 32 * blocks]; y: [rows, outputs]; both contiguous.
        rows, outputs, blocks, groups: counts; a block is 32 inputs.
        GROUP: inputs of a group, 16 or a multiple of 32; 0 for a row.
        BLOCK_W: words read at a time; a power of two.
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
    """y = x W^T + bias by tiles: words are read once, and each plane of them is one product of matrices.

    Weights are rounded to the format of `x` before they are multiplied and sums are kept in float32; float32 is
    multiplied as float32. Arguments as in `few_rows`; BLOCK_M, BLOCK_N and BLOCK_W are 16 or more.
    """
    LOW: tl.constexpr = 2 if BITS == 3 else BITS
    STEP: tl.constexpr = 16 if GROUP == 16 else 32
    program = tl.program_id(0)
    # Programs that start together share a tile of weights, which is the larger one.
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
        # [BLOCK_N, BLOCK_W]: a thread keeps neighbours along the inputs, and writes them to shared memory together.
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
    """The weight, y [outputs, 32 * blocks], in the format of `y`: where there are so many rows that it pays."""
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
