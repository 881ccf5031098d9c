"""Parts of loops that numba compiles for a CPU: numbers in 16 bits, and rows distributed over threads.

Such a loop passes over a tensor once, where torch operations pass over it once each. Numba compiles at run time and
needs no C++ compiler.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from numba import types
from numba.extending import overload
from torch import Tensor

_SMALLEST_SHARE = 1 << 16
"""Minimum of numbers per thread; below it, another thread costs more time than it saves."""


def as_float(x):  # type: ignore[no-untyped-def]
    """Return a value in a compiled loop as float32; bfloat16 is passed as uint16."""
    raise AssertionError("only compiled code may call this")


@overload(as_float, inline="always")
def _as_float(x):  # type: ignore[no-untyped-def] # numba requires the same signature
    if x is types.uint16:
        return lambda x: np.uint32(np.uint32(x) << np.uint32(16)).view(np.float32)
    return lambda x: x


def rounded_like(x, like):  # type: ignore[no-untyped-def]
    """Return a float32 value in a compiled loop in the dtype of `like`: rounded to nearest even for bfloat16."""
    raise AssertionError("only compiled code may call this")


@overload(rounded_like, inline="always")
def _rounded_like(x, like):  # type: ignore[no-untyped-def] # numba requires the same signature
    if like is not types.uint16:
        return lambda x, like: x

    def to_bfloat16(x, like):  # type: ignore[no-untyped-def]
        bits = np.float32(x).view(np.uint32)
        return np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))

    return to_bfloat16


def array_of(tensor: Tensor) -> np.ndarray[Any, Any]:
    """Return a tensor as an array, which shares its memory if it is contiguous; uint16 for bfloat16."""
    tensor = tensor.detach().contiguous()
    return tensor.view(torch.uint16).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()


def in_parts(numbers: Tensor, work: Callable[[int, int], None]) -> None:
    """Distribute the rows over as many threads as torch uses; the result does not depend on their number."""
    rows = numbers.shape[0]
    parts = max(1, min(torch.get_num_threads(), numbers.numel() // _SMALLEST_SHARE))
    if parts == 1:
        work(0, rows)
        return
    edges = [rows * part // parts for part in range(parts + 1)]
    list(_threads().map(work, edges[:-1], edges[1:]))


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=64, thread_name_prefix="compiled")
