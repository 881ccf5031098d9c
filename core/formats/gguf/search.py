"""Search for the scales and minimums of groups of weights with the least squared error, compiled with numba.

For every candidate scale the weights are rounded to integers, and the scale is fitted to the integers by linear least
squares, as in ggml's `make_qx_quants` and `make_qkx2_quants`. Unlike there, the objective is the error itself, both
signs of a scale are tried, and small candidates are included, because a single important input may dominate a group.
The scales of a K-quant are integer multiples of a float16. The search first finds the best scale of every group, then
the float16 whose multiples are nearest to them, and then optimizes multiples and float16 alternately for the least
error of the weights. The search always runs on the CPU, where a matrix takes seconds.

In all functions, x are the weights of a group and w the weights of their squared errors, both float32; level 0 of a
symmetric group is its middle. `book` is None for levels that are integers from `low` to `high`; for a type with a code
book it has the nearest value in each cell of `core.formats.gguf.code_books`, which are the levels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

Array = np.ndarray[Any, Any]

_ROUNDS = 2
"""Maximum number of alternations between multiples and float16."""
_LARGEST = np.float32(65504.0)
_SMALLEST_NORMAL = np.float32(2.0**-14)
_STEP_BELOW = np.float32(2.0**24)

# Allow sums in any order and fused multiply-add: errors of candidates may differ in the last bit, stored values do not.
_compiled = njit(nogil=True, cache=True, fastmath={"reassoc", "nsz", "contract"}, error_model="numpy")
_exact = njit(nogil=True, cache=True, error_model="numpy")


@_exact
def half(value):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return the nearest float16 as float32, at most the largest finite one."""
    value = min(max(np.float32(value), -_LARGEST), _LARGEST)
    if abs(value) < _SMALLEST_NORMAL:
        return np.float32(np.rint(value * _STEP_BELOW) / _STEP_BELOW)
    raw = np.float32(value).view(np.uint32)
    raw = np.uint32((raw + np.uint32(0xFFF) + ((raw >> np.uint32(13)) & np.uint32(1))) & np.uint32(0xFFFFE000))
    return raw.view(np.float32)


@_exact
def _step(value):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return the nearest float16, but not 0 for a value that is not 0."""
    nearest = half(value)
    if nearest == 0 and value != 0:
        return np.float32(np.copysign(1.0, value)) / _STEP_BELOW
    return nearest


@_exact
def _inverse(value):  # type: ignore[no-untyped-def] # pragma: no cover
    return np.float32(0) if value == 0 else np.float32(1) / np.float32(value)


@_exact
def _block(values, index, size):  # type: ignore[no-untyped-def] # pragma: no cover
    return values[index * size : (index + 1) * size]


@_compiled
def _nearest_level(value, low, high, book):  # type: ignore[no-untyped-def] # pragma: no cover
    if book is None:  # resolved at compile time
        return min(max(np.rint(value), low), high)
    return book[np.int32((min(max(low, value), high) - low) * 2)]


@_compiled
def _error(x, w, step, zero, low, high, book):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return the weighted squared error of the nearest levels; `zero` is the value of level 0."""
    inverse, total = _inverse(step), np.float32(0)
    for i in range(x.size):
        q = _nearest_level((x[i] - zero) * inverse, low, high, book)
        off = q * step + zero - x[i]
        total += w[i] * off * off
    return total


@_compiled
def _moments(x, w, step, zero, low, high, book):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return the sums of w q x, w q^2 and w q over the nearest levels q."""
    inverse = _inverse(step)
    by_x = by_q = by_one = np.float32(0)
    for i in range(x.size):
        q = _nearest_level((x[i] - zero) * inverse, low, high, book)
        wq = w[i] * q
        by_x += wq * x[i]
        by_q += wq * q
        by_one += wq
    return by_x, by_q, by_one


@_compiled
def _best_scale(x, w, low, high, book, shares):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return the signed scale of least error, and its sum of w q^2."""
    least, most = x.min(), x.max()
    up = max(least / low, most / high)
    down = min(most / low, least / high)
    best, scale, nothing = np.float32(0), np.float32(0), np.float32(0)
    for end in (up, down):
        for share in shares:
            by_x, by_q, _ = _moments(x, w, end * share, nothing, low, high, book)
            fitted = by_x * _inverse(by_q)
            if by_x * fitted > best:
                best, scale = by_x * fitted, fitted
    by_x, by_q, _ = _moments(x, w, scale, nothing, low, high, book)
    return by_x * _inverse(by_q), by_q


@_compiled
def _fit_range(x, w, q, step, zero, high, mean, weight, below):  # type: ignore[no-untyped-def] # pragma: no cover
    """Fit scale and level 0 to the nearest levels by least squares.

    Returns the scale, the level 0, the reduction of the error, and the weighted sums of squares of the levels, around
    their mean and around 0. The weighted mean `mean` is subtracted from x. With `below`, level 0 of the original
    weights is at most 0.
    """
    inverse = _inverse(step)
    by_x = by_one = spread = np.float32(0)
    for i in range(x.size):
        q[i] = min(max(np.rint((x[i] - zero) * inverse), np.float32(0)), high)
        by_one += w[i] * q[i]
        by_x += w[i] * q[i] * x[i]
    centre = by_one / weight
    for i in range(x.size):
        off = q[i] - centre
        spread += w[i] * off * off
    scale = by_x * _inverse(spread)
    square = spread + centre * centre * weight
    if below and mean - scale * centre > 0:
        pull = by_x + mean * by_one
        scale = pull * _inverse(square)
        return scale, -mean, pull * scale - weight * mean * mean, spread, square
    return scale, -scale * centre, by_x * scale, spread, square


@_compiled
def _best_range(x, w, high, below, cuts, centred, q):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return scale and level 0 of least error for levels 0 to `high`, the sums of `_fit_range`, and the sum of w.

    `centred` and `q` are work buffers.
    """
    weight, mean = np.float32(0), np.float32(0)
    for i in range(x.size):
        weight += w[i]
        mean += w[i] * x[i]
    mean /= weight
    for i in range(x.size):
        centred[i] = x[i] - mean
    least, most = centred.min(), centred.max()
    if below:
        least = min(least, -mean)
        most = max(most, least)
    best, scale, zero = np.float32(-np.inf), np.float32(0), least
    for k in range(cuts.shape[0]):
        step = (most - least) / (high + cuts[k, 0] + cuts[k, 1])
        fitted, start, gain, _, _ = _fit_range(
            centred, w, q, step, least + cuts[k, 0] * step, high, mean, weight, below
        )
        if gain > best:
            best, scale, zero = gain, fitted, start
    scale, zero, _, spread, square = _fit_range(centred, w, q, scale, zero, high, mean, weight, below)
    return scale, zero + mean, spread, square, weight


@_exact
def _common(values, stiffness, tries, low, high):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return the float16 of a block whose integer multiples are nearest to `values`.

    `stiffness` has the weights of the squared differences, `tries` the candidate multiples of the largest value.
    """
    largest = values[np.abs(values).argmax()]
    least, best = np.inf, np.float32(0)
    for k in range(tries.size):
        unit = _step(largest / tries[k])
        for again in range(2):
            inverse, cost, pull, stiff = _inverse(unit), 0.0, 0.0, 0.0
            for g in range(values.size):
                code = min(max(np.rint(values[g] * inverse), low), high)
                off = code * unit - values[g]
                cost += stiffness[g] * off * off
                pull += stiffness[g] * code * values[g]
                stiff += stiffness[g] * code * code
            if cost < least:
                least, best = cost, unit
            if again == 0 and stiff > 0:
                unit = half(pull / stiff)
    return best


@_exact
def _nearest(value, unit, low, high):  # type: ignore[no-untyped-def] # pragma: no cover
    return min(max(np.rint(value * _inverse(unit)), low), high)


@_exact
def _choose(x, w, size, d, m, scales, mins, low, high, book, bounds, costs):  # type: ignore[no-untyped-def] # pragma: no cover
    """Replace the integers of every group by the best of their neighbours; write the errors to `costs`."""
    reach = 0 if m == 0 else 1
    for g in range(scales.size):
        part, count = _block(x, g, size), _block(w, g, size)
        a, c = scales[g], mins[g]
        costs[g] = np.inf
        for move in (0, -1, 1):
            for lift in range(-reach, reach + 1):
                s, n = a + np.float32(move), c + np.float32(lift)
                if bounds[0] <= s <= bounds[1] and bounds[0] <= n <= bounds[1]:
                    cost = _error(part, count, d * s, -m * n, low, high, book)
                    if cost < costs[g]:
                        costs[g], scales[g], mins[g] = cost, s, n


@_exact
def _fit_units(x, w, size, d, m, scales, mins, low, high, book):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return the float16 values d and m of least error for fixed integers (normal equations of x = d s q - m n)."""
    pull = lift = stiff = cross = other = 0.0
    for g in range(scales.size):
        part, count = _block(x, g, size), _block(w, g, size)
        a, c = scales[g], mins[g]
        by_x, by_q, by_one = _moments(part, count, d * a, -m * c, low, high, book)
        pull += a * by_x
        stiff += a * a * by_q
        if m != 0:
            lift += c * (part * count).sum()
            cross += a * c * by_one
            other += c * c * count.sum()
    if m == 0:
        return (half(pull / stiff) if stiff > 0 else d), m
    room = stiff * other - cross * cross
    if not room > 1e-6 * stiff * other:
        return d, m
    return half(max(pull * other - lift * cross, 0.0) / room), half(max(pull * cross - lift * stiff, 0.0) / room)


@_exact
def _settle(x, w, size, d, m, scales, mins, low, high, book, bounds, costs):  # type: ignore[no-untyped-def] # pragma: no cover
    """Optimize integers and float16 values alternately while the error decreases; return d and m."""
    for _ in range(_ROUNDS):
        _choose(x, w, size, d, m, scales, mins, low, high, book, bounds, costs)
        other_d, other_m = _fit_units(x, w, size, d, m, scales, mins, low, high, book)
        change = 0.0
        for g in range(scales.size):
            part, count = _block(x, g, size), _block(w, g, size)
            change += _error(part, count, other_d * scales[g], -other_m * mins[g], low, high, book) - costs[g]
        if not change < 0:
            return d, m
        d, m = other_d, other_m
    _choose(x, w, size, d, m, scales, mins, low, high, book, bounds, costs)
    return d, m


@_exact
def legacy_scales(weight, w, low, high, book, shares, d, first, last):  # type: ignore[no-untyped-def] # pragma: no cover
    """Fill d [out, groups] of some rows (q4_0, q5_0, q8_0, iq4_nl)."""
    size = weight.shape[1] // d.shape[1]
    for row in range(first, last):
        for g in range(d.shape[1]):
            x, count = _block(weight[row], g, size), _block(w, g, size)
            step = _step(_best_scale(x, count, low, high, book, shares)[0])
            if (
                0 < abs(step) < _SMALLEST_NORMAL
            ):  # float16 is coarse here, so the nearest value may clip the largest weights
                larger = step + np.float32(np.copysign(1.0, step)) / _STEP_BELOW
                if _error(x, count, larger, np.float32(0), low, high, book) < _error(
                    x, count, step, np.float32(0), low, high, book
                ):
                    step = larger
            d[row, g] = step


@_exact
def legacy_ranges(weight, w, low, high, book, cuts, d, m, first, last):  # type: ignore[no-untyped-def] # pragma: no cover
    """Fill d and m [out, groups] of some rows (q4_1, q5_1)."""
    size = weight.shape[1] // d.shape[1]
    centred, q = np.empty(size, np.float32), np.empty(size, np.float32)
    for row in range(first, last):
        for g in range(d.shape[1]):
            x, count = _block(weight[row], g, size), _block(w, g, size)
            scale, zero, _, _, total = _best_range(x, count, high, False, cuts, centred, q)
            step, zero = _step(scale), half(zero)
            _, _, by_one = _moments(x, count, step, zero, low, high, book)
            fitted = half(((x * count).sum() - step * by_one) / total)
            better = _error(x, count, step, fitted, low, high, book) < _error(x, count, step, zero, low, high, book)
            d[row, g], m[row, g] = step, fitted if better else zero


@_exact
def nested_scales(weight, w, low, high, book, shares, tries, bounds, d, scales, first, last):  # type: ignore[no-untyped-def] # pragma: no cover
    """Fill d [out, blocks] and scales [out, groups] of some rows (q3_k, q6_k, iq4_xs)."""
    size, per = weight.shape[1] // scales.shape[1], scales.shape[1] // d.shape[1]
    stiffness, costs, none = np.empty(per, np.float32), np.empty(per, np.float32), np.zeros(per, np.float32)
    for row in range(first, last):
        for block in range(d.shape[1]):
            x, count = _block(weight[row], block, per * size), _block(w, block, per * size)
            codes = _block(scales[row], block, per)
            for g in range(per):
                part, share = _block(x, g, size), _block(count, g, size)
                codes[g], stiffness[g] = _best_scale(part, share, low, high, book, shares)
            unit = _common(codes, stiffness, tries, bounds[0], bounds[1])
            for g in range(per):
                codes[g] = _nearest(codes[g], unit, bounds[0], bounds[1])
            d[row, block] = _settle(x, count, size, unit, np.float32(0), codes, none, low, high, book, bounds, costs)[0]


@_exact
def nested_ranges(weight, w, low, high, book, cuts, tries, bounds, d, m, scales, mins, first, last):  # type: ignore[no-untyped-def] # pragma: no cover
    """Fill d, m [out, blocks], scales and mins [out, groups] of some rows (q2_k, q4_k, q5_k)."""
    size, per = weight.shape[1] // scales.shape[1], scales.shape[1] // d.shape[1]
    centred, q = np.empty(size, np.float32), np.empty(size, np.float32)
    firm, loose, costs = np.empty(per, np.float32), np.empty(per, np.float32), np.empty(per, np.float32)
    for row in range(first, last):
        for block in range(d.shape[1]):
            x, count = _block(weight[row], block, per * size), _block(w, block, per * size)
            codes, lows = _block(scales[row], block, per), _block(mins[row], block, per)
            for g in range(per):
                part, share = _block(x, g, size), _block(count, g, size)
                codes[g], zero, spread, square, total = _best_range(part, share, high, True, cuts, centred, q)
                # Cost of an error of one value if the other one is adjusted to it.
                lows[g], firm[g], loose[g] = -zero, spread, total * spread * _inverse(square)
            unit = _common(codes, firm, tries, bounds[0], bounds[1])
            lift = _common(lows, loose, tries, bounds[0], bounds[1])
            for g in range(per):
                codes[g] = _nearest(codes[g], unit, bounds[0], bounds[1])
                lows[g] = _nearest(lows[g], lift, bounds[0], bounds[1])
            unit, lift = _settle(x, count, size, unit, lift, codes, lows, low, high, book, bounds, costs)
            d[row, block], m[row, block] = unit, lift
