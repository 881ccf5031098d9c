"""Compiled inner loops of tuning on a CPU: one pass over a layer instead of about twenty torch operations.

With 512 tokens per step the torch operations take longer than the matrix products; compiled, they take a few percent
of that time. The formulas are those of `core.quant.grid`, which also has them as torch operations; a test compares
both. Numba compiles at run time and needs no C++ compiler.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from core.compiled import array_of, as_float, in_parts, rounded_like

DEVICE = "cpu"
"""Type of the devices with compiled loops."""


def compiled_for(tensor: Tensor) -> bool:
    """Return whether there are compiled loops for the device of a tensor."""
    return tensor.device.type == DEVICE


@njit(nogil=True, cache=True, error_model="numpy")
def _position(ratio, codes):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return the position of a value between the levels of a code book, as `code_books.positions`."""
    left = 0
    for level in range(1, codes.size - 1):
        left += codes[level] < ratio
    return (ratio - codes[left]) / (codes[left + 1] - codes[left]) + np.float32(left)


# reassoc allows vectorized sums; contraction stays off, so that W/s + V is rounded as in torch.
@njit(nogil=True, cache=True, fastmath={"reassoc", "nsz"}, error_model="numpy")
def _step(weight, gradient, offset, scale, zero, base, codes, unit, steps, low, high, sums, first, last):  # type: ignore[no-untyped-def] # pragma: no cover
    groups = scale.shape[1]
    size = weight.shape[1] // groups
    through = np.empty(size, np.float32)
    for row in range(first, last):
        for group in range(groups):
            begin = group * size
            w, g, n = (
                weight[row, begin : begin + size],
                gradient[row, begin : begin + size],
                offset[row, begin : begin + size],
            )
            s, z = scale[row, group], zero[row, group]
            b = np.float32(0) if base is None else base[row, group]  # resolved at compile time
            move = np.int32(steps) if s > 0 else np.int32(-steps)
            total = by_level = by_ratio = passed = np.float32(0)
            for i in range(size):
                ratio = (as_float(w[i]) - b) / s
                if codes is not None:  # resolved at compile time
                    ratio = _position(ratio, codes)
                raw = np.rint(np.float32(n[i]) * unit + ratio) + z
                level = min(max(raw, low), high)
                slope = as_float(g[i])
                inside = slope if raw == level else np.float32(0)
                total += slope
                by_level += slope * level
                by_ratio += inside * ratio
                passed += inside
                through[i] = inside
            for i in range(size):
                n[i] = np.int32(n[i]) - move * (np.int32(through[i] > 0) - np.int32(through[i] < 0))
            sums[0, row, group] = total
            sums[1, row, group] = by_level
            sums[2, row, group] = by_ratio
            sums[3, row, group] = passed


@njit(nogil=True, cache=True, fastmath={"nsz"}, error_model="numpy")
def _quantize(weight, offset, scale, zero, base, codes, unit, low, high, out, first, last):  # type: ignore[no-untyped-def] # pragma: no cover
    groups = scale.shape[1]
    size = weight.shape[1] // groups
    for row in range(first, last):
        for group in range(groups):
            begin = group * size
            w, n, to = (
                weight[row, begin : begin + size],
                offset[row, begin : begin + size],
                out[row, begin : begin + size],
            )
            s, z = scale[row, group], zero[row, group]
            b = np.float32(0) if base is None else base[row, group]  # resolved at compile time
            for i in range(size):
                ratio = (as_float(w[i]) - b) / s
                if codes is not None:  # resolved at compile time
                    ratio = _position(ratio, codes)
                level = min(max(np.rint(np.float32(n[i]) * unit + ratio) + z, low), high)
                above = level - z if codes is None else codes[np.int32(level)]
                to[i] = rounded_like(above * s + b, to[i])


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
    """Move the offsets in place, and return the four sums over each group for the gradients of the ranges.

    Args:
        weight, gradient: bfloat16 or float32 [out, in]. offset: int16 or int32 [out, in].
        scale: float32 [out, groups]. zero: float32 [out, groups], added to a level before it is clamped to `bounds`.
        base: float32 [out, groups], value of level 0; None for 0.
        codes: values of the levels of a code book, float32 [2^bits]; None without one.

    Returns:
        float32 [4, out, groups]: sums of G, G q, G m (W - base) / s and G m, as in `core.quant.grid`.
    """
    sums = torch.empty(4, *scale.shape)
    target = sums.numpy()
    arrays = (
        array_of(weight),
        array_of(gradient),
        array_of(offset),
        scale.numpy(),
        zero.numpy(),
        _optional(base),
        _optional(codes),
    )
    numbers = (np.float32(unit), steps, np.float32(bounds[0]), np.float32(bounds[1]))
    in_parts(weight, lambda first, last: _step(*arrays, *numbers, target, first, last))
    return sums


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
    """Write the dequantized weight into `out`, [out, in]; the rest is as in `step`."""
    arrays = (array_of(weight), array_of(offset), scale.numpy(), zero.numpy(), _optional(base), _optional(codes))
    numbers = (np.float32(unit), np.float32(bounds[0]), np.float32(bounds[1]))
    with _exact(out) as target:
        in_parts(weight, lambda first, last: _quantize(*arrays, *numbers, target, first, last))


@njit(nogil=True, cache=True, fastmath={"nsz"}, error_model="numpy")
def _dequantize(levels, digits, codes, scale, zero, base, out, first, last):  # type: ignore[no-untyped-def] # pragma: no cover
    groups = scale.shape[1]
    size = levels.shape[1] // groups
    half = (np.int32(1) << digits) >> 1
    for row in range(first, last):
        for group in range(groups):
            begin = group * size
            q, to = levels[row, begin : begin + size], out[row, begin : begin + size]
            s, z = scale[row, group], zero[row, group]
            b = np.float32(0) if base is None else base[row, group]  # resolved at compile time
            for i in range(size):
                level = (np.int32(q[i]) + half) >> digits
                above = np.float32(level) - z if codes is None else codes[level]  # resolved at compile time
                to[i] = rounded_like(above * s + b, to[i])


@njit(nogil=True, cache=True, fastmath={"reassoc", "nsz"}, error_model="numpy")
def _level_sums(levels, codes, gradient, zero, sums, first, last):  # type: ignore[no-untyped-def] # pragma: no cover
    groups = zero.shape[1]
    size = levels.shape[1] // groups
    for row in range(first, last):
        for group in range(groups):
            begin = group * size
            q, g = levels[row, begin : begin + size], gradient[row, begin : begin + size]
            z = zero[row, group]
            total = np.float32(0)
            for i in range(size):
                above = np.float32(q[i]) - z if codes is None else codes[q[i]]  # resolved at compile time
                total += as_float(g[i]) * above
            sums[row, group] = total


def dequantize(
    levels: Tensor,
    scale: Tensor,
    zero: Tensor,
    base: Tensor | None,
    out: Tensor,
    digits: int = 0,
    codes: Tensor | None = None,
) -> None:
    """Write (level - zero) * scale + base into `out`, [out, in].

    Args:
        levels: uint8 or int16 [out, in], multiples of 2^-digits that are rounded to whole levels.
        scale, zero, base: float32 [out, groups]; no base is 0.
        codes: values of the levels of a code book, float32 [2^bits], which replace level - zero.
    """
    arrays = (levels.numpy(), np.int32(digits), _optional(codes), scale.numpy(), zero.numpy(), _optional(base))
    with _exact(out) as target:
        in_parts(levels, lambda first, last: _dequantize(*arrays, target, first, last))


def level_sums(levels: Tensor, gradient: Tensor, zero: Tensor, codes: Tensor | None = None) -> Tensor:
    """Return the sums of G (level - zero) over each group, float32 [out, groups]; arguments as in `dequantize`.

    Args:
        gradient: G, bfloat16 or float32 [out, in].
    """
    sums = torch.empty(zero.shape)
    arrays = (levels.numpy(), _optional(codes), array_of(gradient), zero.numpy(), sums.numpy())
    in_parts(levels, lambda first, last: _level_sums(*arrays, first, last))
    return sums


@njit(nogil=True, cache=True, fastmath={"reassoc", "nsz"}, error_model="numpy")
def _move_latent(latent, gradient, scale, zero, digits, move, low, high, sums, first, last):  # type: ignore[no-untyped-def] # pragma: no cover
    groups = scale.shape[1]
    size = latent.shape[1] // groups
    half = np.int32(1 << (digits - 1))
    for row in range(first, last):
        for group in range(groups):
            begin = group * size
            n, g = latent[row, begin : begin + size], gradient[row, begin : begin + size]
            z = zero[row, group]
            by = np.int32(move) if scale[row, group] > 0 else np.int32(-move)
            total = np.float32(0)
            for i in range(size):
                slope, at = as_float(g[i]), np.int32(n[i])
                total += slope * (np.float32((at + half) >> digits) - z)
                at -= by * (np.int32(slope > 0) - np.int32(slope < 0))
                n[i] = min(max(at, low), high)
            sums[row, group] = total


def move_latent(
    latent: Tensor, gradient: Tensor, scale: Tensor, zero: Tensor, digits: int, size: int, limits: tuple[int, int]
) -> Tensor:
    """Move latent levels in place against the signs of their gradients.

    Args:
        latent: int16 [out, in], latent levels as multiples of 2^-digits.
        scale, zero: float32 [out, groups].
        gradient: G, bfloat16 or float32 [out, in].
        size: multiples by which the latent levels move.
        limits: smallest and largest latent level.

    Returns:
        float32 [out, groups]: sums of G (level - zero) over each group, with the levels before the move.
    """
    sums = torch.empty(zero.shape)
    arrays = (latent.numpy(), array_of(gradient), scale.numpy(), zero.numpy())
    numbers = (np.int32(digits), np.int32(size), np.int32(limits[0]), np.int32(limits[1]), sums.numpy())
    in_parts(latent, lambda first, last: _move_latent(*arrays, *numbers, first, last))
    return sums


@contextlib.contextmanager
def _exact(out: Tensor) -> Iterator[np.ndarray[Any, Any]]:
    """Yield the array of `out` if the loops can write to it, which is contiguous float32 or bfloat16; else one of
    float32 that is copied to `out` afterwards."""
    direct = out.dtype in (torch.float32, torch.bfloat16) and out.is_contiguous()
    exact = out if direct else torch.empty(out.shape)
    yield array_of(exact)
    if not direct:
        out.copy_(exact)


def _optional(tensor: Tensor | None) -> np.ndarray[Any, Any] | None:
    return None if tensor is None else tensor.numpy()
