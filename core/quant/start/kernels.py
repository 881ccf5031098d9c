"""Compiled loops over the columns of rows, for the start on a CPU.

Rows are independent, so each thread handles some of them. The formulas are those of `core.quant.start.feedback` and
`core.quant.start.descent`, which also have them as torch operations; a test compares both.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True, fastmath={"nsz", "contract"}, error_model="numpy")
def feed_back(work, levels, scale, zero, group_of, upper, errors, top, begin, end, first, last):  # type: ignore[no-untyped-def] # pragma: no cover
    """Round the columns from `begin` to `end` of some rows in place, and spread their errors over these columns."""
    for row in range(first, last):
        for c in range(begin, end):
            s, z = scale[row, group_of[c]], zero[row, group_of[c]]
            level = min(max(np.rint(work[row, c] / s + z), np.float32(0)), top)
            levels[row, c] = np.uint8(level)
            error = (work[row, c] - (level - z) * s) / upper[c, c]
            errors[row, c - begin] = error
            for other in range(c + 1, end):
                work[row, other] -= error * upper[c, other]


@njit(nogil=True, cache=True, fastmath={"nsz", "contract"}, error_model="numpy")
def descend(levels, slopes, residual, scale, zero, gram, group, top, begin, end, first, last):  # type: ignore[no-untyped-def] # pragma: no cover
    """Set each level of some columns, in order, to the minimum of the error given all others."""
    for row in range(first, last):
        for c in range(begin, end):
            s = scale[row, c // group]
            before = np.float32(levels[row, c])
            level = min(max(np.rint(before + slopes[row, c - begin] / (gram[c, c] * s)), np.float32(0)), top)
            if level != before:
                levels[row, c] = np.uint8(level)
                change = (level - before) * s
                residual[row, c] -= change
                for other in range(c + 1, end):
                    slopes[row, other - begin] -= gram[c, other] * change
