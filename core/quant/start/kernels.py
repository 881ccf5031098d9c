"""Compiled loops over the columns of rows, for the start on a CPU.

Rows are independent, so each thread handles some of them. The formulas are those of `core.quant.start.feedback` and
`core.quant.start.descent`, which also have them as torch operations; a test compares both. `codes` and `cells` are the
values and the nearest integers of a code book (`core.formats.gguf.code_books`), or None.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True, fastmath={"nsz", "contract"}, error_model="numpy")
def _nearest(value, codes, cells):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return the integer whose code is nearest to `value`."""
    low, high = codes[0], codes[-1]
    return cells[np.int32((min(max(low, value), high) - low) * 2)]


@njit(nogil=True, cache=True, fastmath={"nsz", "contract"}, error_model="numpy")
def feed_back(work, levels, scale, zero, group_of, upper, errors, codes, cells, top, begin, end, first, last):  # type: ignore[no-untyped-def] # pragma: no cover
    """Round the columns from `begin` to `end` of some rows in place, and spread their errors over these columns."""
    for row in range(first, last):
        for c in range(begin, end):
            s, z = scale[row, group_of[c]], zero[row, group_of[c]]
            if codes is None:  # resolved at compile time
                level = min(max(np.rint(work[row, c] / s + z), np.float32(0)), top)
                levels[row, c] = np.uint8(level)
                above = level - z
            else:
                levels[row, c] = _nearest(work[row, c] / s, codes, cells)
                above = codes[levels[row, c]]
            error = (work[row, c] - above * s) / upper[c, c]
            errors[row, c - begin] = error
            for other in range(c + 1, end):
                work[row, other] -= error * upper[c, other]


@njit(nogil=True, cache=True, fastmath={"nsz", "contract"}, error_model="numpy")
def descend(levels, slopes, residual, scale, gram, codes, cells, group, top, begin, end, first, last):  # type: ignore[no-untyped-def] # pragma: no cover
    """Set each level of some columns, in order, to the minimum of the error given all others."""
    for row in range(first, last):
        for c in range(begin, end):
            s = scale[row, c // group]
            move = slopes[row, c - begin] / (gram[c, c] * s)
            if codes is None:  # resolved at compile time
                before = np.float32(levels[row, c])
                after = min(max(np.rint(before + move), np.float32(0)), top)
                level = np.uint8(after)
            else:
                before = codes[levels[row, c]]
                level = _nearest(before + move, codes, cells)
                after = codes[level]
            if after != before:
                levels[row, c] = level
                change = (after - before) * s
                residual[row, c] -= change
                for other in range(c + 1, end):
                    slopes[row, other - begin] -= gram[c, other] * change
