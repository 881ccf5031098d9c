"""The compiled kernels as Python calls them: the structs of bitwright.h, and one product.

ctypes gives the interpreter's lock back while a kernel runs. Knows nothing of models and layers.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, Structure, byref, c_float, c_int32, c_int64, c_void_p
from functools import lru_cache

from core.errors import BitwrightError, MissingDependency
from core.inference.native import build

F32, BF16, F16, GRID = 0, 1, 2, 3
SYMMETRIC, ZEROS, MINIMUMS, NESTED = 0, 1, 2, 3
AVX2, AVX512, VNNI, NEON = 1, 2, 4, 8
ALIGNMENT = 64
"""Of packed weights and of what holds activations, in bytes."""


class BwMatrix(Structure):
    """`bw_matrix` of bitwright.h."""

    _fields_ = (
        ("weights", c_int32), ("bits", c_int32), ("scales", c_int32), ("zero", c_int32), ("outputs", c_int32),
        ("inputs", c_int32), ("group", c_int32), ("block", c_int32), ("planes", c_int32), ("super", c_int32),
        ("data", c_void_p), ("scale", c_void_p), ("offset", c_void_p), ("order", c_void_p), ("bias", c_void_p),
        ("steps", c_void_p),
    )  # fmt: skip


class BwActivations(Structure):
    """`bw_activations` of bitwright.h."""

    _fields_ = (
        ("x", c_void_p), ("rows", c_int32), ("inputs", c_int32), ("block", c_int32), ("planes", c_int32),
        ("stride", c_int64), ("values", c_void_p), ("scale", c_void_p), ("sum", c_void_p), ("total", c_void_p),
    )  # fmt: skip


_SIGNATURES = {
    "bw_activation_bytes": (c_int64, [POINTER(BwActivations)]),
    "bw_place_activations": (None, [POINTER(BwActivations), c_void_p]),
    "bw_quantize_rows": (None, [POINTER(BwActivations), c_void_p, c_int32, c_int32]),
    "bw_linear_tiles": (c_int32, [POINTER(BwMatrix), c_int32]),
    "bw_linear_tile": (
        None,
        [POINTER(BwMatrix), POINTER(BwActivations), c_void_p, c_int64, c_int32, c_int32],
    ),
    "bw_multiply": (None, [POINTER(BwMatrix), POINTER(BwActivations), c_void_p, c_int32]),
    "bw_matrix_row": (None, [POINTER(BwMatrix), c_int32, POINTER(c_float)]),
    "bw_data_bytes": (c_int64, [POINTER(BwMatrix)]),
    "bw_pack": (None, [POINTER(BwMatrix), c_void_p, c_void_p, c_int32, c_int32]),
    "bw_instructions": (c_int32, []),
}


def load() -> ctypes.CDLL:
    """The kernels, compiled if need be; the same object from the second call on.

    Raises:
        MissingDependency: they cannot be compiled or loaded here; the reason as a sentence.
    """
    return _load(os.environ.get("BITWRIGHT_NATIVE_FLAGS", ""), str(build.folder()))


@lru_cache(maxsize=8)
def _load(flags: str, folder: str) -> ctypes.CDLL:
    """`load` for one set of flags and one cache."""
    path = build.library()
    try:
        found = ctypes.CDLL(str(path))
    except OSError:
        build.discard(path)
        try:
            found = ctypes.CDLL(str(build.library()))
        except OSError as error:
            raise MissingDependency(f"The compiled kernels cannot be loaded ({error}).", "") from error
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(found, name)
        function.restype, function.argtypes = result, arguments
    return found


@lru_cache(maxsize=1)
def why_not() -> str:
    """Why the kernels cannot be used here, as one sentence; "" where they can. Compiles them on its first call."""
    try:
        load()
    except BitwrightError as error:
        return error.message
    return ""


def instructions() -> str:
    """What the kernels were compiled for, in words."""
    bits = load().bw_instructions()
    width = (
        "AVX-512" if bits & AVX512 else "AVX2" if bits & AVX2 else "NEON" if bits & NEON else "no vector instructions"
    )
    return f"{width} with VNNI" if bits & VNNI else width


def place(activations: BwActivations, address: int) -> None:
    """Share memory of `activation_bytes` out to the parts of the activations."""
    load().bw_place_activations(byref(activations), address)


def activation_bytes(activations: BwActivations) -> int:
    """How much memory the activations need, by rows, inputs, block and planes."""
    return int(load().bw_activation_bytes(byref(activations)))
