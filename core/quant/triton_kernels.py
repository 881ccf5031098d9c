"""Triton kernels of the grids for CUDA and XPU devices: one launch in place of about twenty torch operations.

The formulas are those of `core.quant.grid`, `core.quant.level_grid` and `core.quant.latent_grid`. Values equal those of
the torch operations to the bit; sums over a group differ by the order of their terms. Products and sums are not
contracted (FMA), since the levels depend on how W / s + V is rounded.

A program computes some groups. All matrices are contiguous, so that the groups of a weight [out, in] are the rows of a
matrix [out * groups, size]. Imports triton, so import this module only if triton is installed.
"""

# The first functions below are compiled by triton, never called from Python; their arguments are tensors and pointers.
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from core.inference.current_device import current_device

LONGEST = 4096
"""Longest group whose step is one launch; the tile of a program then still fits into its registers."""
_TILE = 2048
"""Weights per program, unless a group is longer."""


@triton.jit
def _groups_of_program(groups, BLOCK_G: tl.constexpr):
    """Return the numbers of the groups of this program, and which of them exist."""
    group = tl.program_id(0).to(tl.int64) * BLOCK_G + tl.arange(0, BLOCK_G)
    return group, group < groups


@triton.jit
def _places(group, exists, first, size, BLOCK_S: tl.constexpr):
    """Return the positions of some weights of each group in the flat matrix, and which of them exist."""
    column = first + tl.arange(0, BLOCK_S)
    return group[:, None] * size + column[None, :], exists[:, None] & (column < size)[None, :]


@triton.jit
def _whole(latent, DIGITS: tl.constexpr):
    """Return the levels, float32, of multiples of 2^-DIGITS, int32."""
    return ((latent + ((1 << DIGITS) >> 1)) >> DIGITS).to(tl.float32)


@triton.jit
def _raw_level(weight, offset, scale, shift, base, unit, BASE: tl.constexpr):
    """Return (W - base) / s, and the level round((W - base) / s + V) + shift before it is clamped."""
    if BASE:
        weight -= base[:, None]
    ratio = tl.div_rn(weight, tl.broadcast_to(scale[:, None], weight.shape))
    moved = offset.to(tl.float32) * unit + ratio
    # The sum of 1.5 * 2^23 and a number below 2^22 is rounded to a whole number, to even as in torch. Larger ratios are
    # clamped before, which keeps them far outside of the range of the levels.
    moved = tl.minimum(tl.maximum(moved, -2097152.0), 2097152.0)
    return ratio, ((moved + 12582912.0) - 12582912.0) + shift[:, None]


@triton.jit
def _sign(x):
    """Return the sign of a number, int32: 0 for 0 and NaN."""
    return (x > 0).to(tl.int32) - (x < 0).to(tl.int32)


@triton.jit
def _storable(scale, reach):
    """Return `core.quant.grid.storable` of scales."""
    size = tl.minimum(tl.abs(scale), 65504.0)
    nearest = size.to(tl.float16).to(tl.float32)
    missing = (size - nearest) * reach > 0.5 * nearest
    nearest = tl.where(missing, nearest + 5.9604644775390625e-08, nearest)  # 2^-24
    nearest = tl.maximum(nearest, 5.9604644775390625e-08)
    return tl.where(scale < 0, -nearest, nearest)


@triton.jit
def round_groups(
    weight, offset, scale, shift, base, out, unit, low, high, groups, size,
    BASE: tl.constexpr, BLOCK_G: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    """Write (q - shift) s + base with the rounded levels q."""
    group, exists = _groups_of_program(groups, BLOCK_G)
    s = tl.load(scale + group, mask=exists, other=1.0)
    z = tl.load(shift + group, mask=exists, other=0.0)
    b = z
    if BASE:
        b = tl.load(base + group, mask=exists, other=0.0)
    for first in range(0, size, BLOCK_S):
        place, inside = _places(group, exists, first, size, BLOCK_S)
        w = tl.load(weight + place, mask=inside, other=0.0).to(tl.float32)
        n = tl.load(offset + place, mask=inside, other=0)
        _, raw = _raw_level(w, n, s, z, b, unit, BASE)
        value = (tl.minimum(tl.maximum(raw, low), high) - z[:, None]) * s[:, None]
        if BASE:
            value += b[:, None]
        tl.store(out + place, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def move_offsets(
    weight, gradient, offset, scale, shift, base, sums, unit, steps, low, high, groups, size,
    BASE: tl.constexpr, BLOCK_G: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    """Move the offsets, and write the four sums over each group, [4, groups]."""
    group, exists = _groups_of_program(groups, BLOCK_G)
    s = tl.load(scale + group, mask=exists, other=1.0)
    z = tl.load(shift + group, mask=exists, other=0.0)
    b = z
    if BASE:
        b = tl.load(base + group, mask=exists, other=0.0)
    move = tl.where(s > 0, steps, -steps)
    total = tl.zeros((BLOCK_G,), tl.float32)
    by_level = tl.zeros((BLOCK_G,), tl.float32)
    by_ratio = tl.zeros((BLOCK_G,), tl.float32)
    passed = tl.zeros((BLOCK_G,), tl.float32)
    for first in range(0, size, BLOCK_S):
        place, inside = _places(group, exists, first, size, BLOCK_S)
        w = tl.load(weight + place, mask=inside, other=0.0).to(tl.float32)
        n = tl.load(offset + place, mask=inside, other=0)
        slope = tl.load(gradient + place, mask=inside, other=0.0).to(tl.float32)
        ratio, raw = _raw_level(w, n, s, z, b, unit, BASE)
        level = tl.minimum(tl.maximum(raw, low), high)
        through = tl.where(raw == level, slope, 0.0)
        total += tl.sum(slope, 1)
        by_level += tl.sum(level * slope, 1)
        by_ratio += tl.sum(ratio * through, 1)
        passed += tl.sum(through, 1)
        moved = n.to(tl.int32) - move[:, None] * _sign(through)
        tl.store(offset + place, moved.to(offset.dtype.element_ty), mask=inside)
    tl.store(sums + group, total, mask=exists)
    tl.store(sums + groups + group, by_level, mask=exists)
    tl.store(sums + 2 * groups + group, by_ratio, mask=exists)
    tl.store(sums + 3 * groups + group, passed, mask=exists)


@triton.jit
def dequantize_groups(
    levels, scale, zero, base, out, groups, size,
    DIGITS: tl.constexpr, BASE: tl.constexpr, BLOCK_G: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    """Write (level - zero) s + base."""
    group, exists = _groups_of_program(groups, BLOCK_G)
    s = tl.load(scale + group, mask=exists, other=1.0)
    z = tl.load(zero + group, mask=exists, other=0.0)
    for first in range(0, size, BLOCK_S):
        place, inside = _places(group, exists, first, size, BLOCK_S)
        level = _whole(tl.load(levels + place, mask=inside, other=0).to(tl.int32), DIGITS)
        value = (level - z[:, None]) * s[:, None]
        if BASE:
            value += tl.load(base + group, mask=exists, other=0.0)[:, None]
        tl.store(out + place, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def sum_groups(
    levels, gradient, zero, sums, groups, size, BLOCK_G: tl.constexpr, BLOCK_S: tl.constexpr
):  # fmt: skip
    """Write the sums of G (level - zero)."""
    group, exists = _groups_of_program(groups, BLOCK_G)
    z = tl.load(zero + group, mask=exists, other=0.0)
    total = tl.zeros((BLOCK_G,), tl.float32)
    for first in range(0, size, BLOCK_S):
        place, inside = _places(group, exists, first, size, BLOCK_S)
        slope = tl.load(gradient + place, mask=inside, other=0.0).to(tl.float32)
        level = tl.load(levels + place, mask=inside, other=0).to(tl.float32)
        total += tl.sum((level - z[:, None]) * slope, 1)
    tl.store(sums + group, total, mask=exists)


@triton.jit
def step_groups(
    levels, gradient, zero, start_scale, factor, scale, out, move, low, high, factor_step, reach, groups, size,
    DIGITS: tl.constexpr, LEARNED: tl.constexpr, WRITE: tl.constexpr, BLOCK_G: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    """Step the factors of the scales and, if LEARNED, the latent levels; write the dequantized weight if WRITE.

    With WRITE, a tile holds whole groups, so that their levels stay in registers.
    """
    group, exists = _groups_of_program(groups, BLOCK_G)
    z = tl.load(zero + group, mask=exists, other=0.0)
    by = tl.where(tl.load(scale + group, mask=exists, other=1.0) > 0, move, -move)
    total = tl.zeros((BLOCK_G,), tl.float32)
    place, inside = _places(group, exists, 0, size, BLOCK_S)
    at = tl.zeros((BLOCK_G, BLOCK_S), tl.int32)
    for first in range(0, size, BLOCK_S):
        place, inside = _places(group, exists, first, size, BLOCK_S)
        slope = tl.load(gradient + place, mask=inside, other=0.0).to(tl.float32)
        at = tl.load(levels + place, mask=inside, other=0).to(tl.int32)
        total += tl.sum((_whole(at, DIGITS) - z[:, None]) * slope, 1)
        if LEARNED:
            at = tl.minimum(tl.maximum(at - by[:, None] * _sign(slope), low), high)
            tl.store(levels + place, at.to(levels.dtype.element_ty), mask=inside)
    begun = tl.load(start_scale + group, mask=exists, other=1.0)
    changed = tl.load(factor + group, mask=exists, other=1.0) - _sign(total * begun).to(tl.float32) * factor_step
    tl.store(factor + group, changed, mask=exists)
    s = _storable(begun * changed, reach)
    tl.store(scale + group, s, mask=exists)
    if WRITE:
        value = (_whole(at, DIGITS) - z[:, None]) * s[:, None]
        tl.store(out + place, value.to(out.dtype.element_ty), mask=inside)


def quantize(
    weight: Tensor,
    offset: Tensor,
    scale: Tensor,
    zero: Tensor,
    base: Tensor | None,
    unit: float,
    bounds: tuple[int, int],
    out: Tensor,
    codes: Tensor | None = None,
) -> None:
    """Write the dequantized weight into `out`, [out, in]; as `core.quant.kernels.quantize`, without a code book."""
    target = _writable(out)
    _launch(
        round_groups, weight, scale, weight.contiguous(), offset, scale, zero, _or(base, scale), target, unit,
        float(bounds[0]), float(bounds[1]), BASE=base is not None,
    )  # fmt: skip
    _copy_back(target, out)


def step(
    weight: Tensor,
    gradient: Tensor,
    offset: Tensor,
    scale: Tensor,
    zero: Tensor,
    base: Tensor | None,
    unit: float,
    steps: int,
    bounds: tuple[int, int],
    codes: Tensor | None = None,
) -> Tensor:
    """Move the offsets in place, and return the four sums over each group; as `kernels.step`, without a code book."""
    sums = torch.empty(4, *scale.shape, device=scale.device)
    _launch(
        move_offsets, weight, scale, weight.contiguous(), gradient.contiguous(), offset, scale, zero,
        _or(base, scale), sums, unit, steps, float(bounds[0]), float(bounds[1]), BASE=base is not None,
    )  # fmt: skip
    return sums


def dequantize(
    levels: Tensor,
    scale: Tensor,
    zero: Tensor,
    base: Tensor | None,
    out: Tensor,
    digits: int = 0,
    codes: Tensor | None = None,
) -> None:
    """Write (level - zero) * scale + base into `out`; as `core.quant.kernels.dequantize`, without a code book."""
    target = _writable(out)
    _launch(
        dequantize_groups, levels, scale, levels, scale, zero, _or(base, scale), target,
        DIGITS=digits, BASE=base is not None,
    )  # fmt: skip
    _copy_back(target, out)


def level_sums(levels: Tensor, gradient: Tensor, zero: Tensor, codes: Tensor | None = None) -> Tensor:
    """Return the sums of G (level - zero) over each group, float32 [out, groups]."""
    sums = torch.empty(zero.shape, device=zero.device)
    _launch(sum_groups, levels, zero, levels, gradient.contiguous(), zero, sums)
    return sums


def step_levels(
    levels: Tensor,
    gradient: Tensor,
    zero: Tensor,
    start_scale: Tensor,
    factor: Tensor,
    scale: Tensor,
    out: Tensor,
    factor_step: float,
    reach: int,
    latent: tuple[int, int, tuple[int, int]] | None = None,
) -> None:
    """Apply one signed step of factors and latent levels in place, and write the new dequantized weight into `out`.

    Args:
        levels: uint8 [out, in], or int16 with `latent`.
        gradient: dL/dW_q, [out, in], of any floating dtype.
        zero, start_scale: float32 [out, groups].
        factor, scale: float32 [out, groups]; the scale is set to the storable value of start_scale * factor.
        factor_step: step size of the factors.
        reach: levels from 0 to the farther end of the range.
        latent: binary digits after the point of the latent levels, the multiples by which they move, and the smallest
            and largest one; None for levels that are fixed.
    """
    digits, move, limits = (0, 0, (0, 0)) if latent is None else latent
    target = _writable(out)
    whole = levels.numel() // scale.numel() <= LONGEST
    _launch(
        step_groups, levels, scale, levels, gradient.contiguous(), zero, start_scale, factor, scale, target, move,
        *limits, factor_step, float(reach), DIGITS=digits, LEARNED=latent is not None, WRITE=whole,
    )  # fmt: skip
    if not whole:
        dequantize(levels, scale, zero, None, target, digits)
    _copy_back(target, out)


def _launch(kernel: Any, matrix: Tensor, per_group: Tensor, *args: Any, **constants: Any) -> None:
    """Launch a kernel for all groups of a matrix [out, in] with values [out, groups]."""
    if not all(arg.is_contiguous() for arg in args if isinstance(arg, Tensor)):
        raise ValueError("a matrix of a grid is not contiguous")
    groups = per_group.numel()
    if not groups:
        return
    size = matrix.numel() // groups
    width = min(triton.next_power_of_2(size), LONGEST)
    tile = {"BLOCK_G": max(1, _TILE // width), "BLOCK_S": width}
    with current_device(matrix.device):
        kernel[triton.cdiv(groups, tile["BLOCK_G"]),](
            *args, groups, size, **constants, **tile, num_warps=4, enable_fp_fusion=False
        )


def _or(tensor: Tensor | None, placeholder: Tensor) -> Tensor:
    return placeholder if tensor is None else tensor.contiguous()


def _writable(out: Tensor) -> Tensor:
    """Return `out` if the kernels can write to it, else a tensor for `_copy_back`."""
    return out if out.is_contiguous() else torch.empty(out.shape, dtype=out.dtype, device=out.device)


def _copy_back(target: Tensor, out: Tensor) -> None:
    if target is not out:
        out.copy_(target)
