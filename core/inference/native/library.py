"""ctypes bindings of the compiled kernels: the structs and functions of bitwright.h.

ctypes releases the interpreter lock while a kernel runs.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import ExitStack
from ctypes import POINTER, Structure, byref, c_char_p, c_int32, c_int64, c_void_p
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import BitwrightError, CorruptFile, MissingDependency
from core.inference.native import build

if TYPE_CHECKING:
    from torch import Tensor

F32, BF16, F16, GRID = 0, 1, 2, 3
SYMMETRIC, ZEROS, MINIMUMS, NESTED = 0, 1, 2, 3
AVX2, AVX512, VNNI, NEON = 1, 2, 4, 8
MAX_THREADS = 256
ALIGNMENT = 64
"""Alignment of packed weights and activations, in bytes."""


class Memory(Structure):
    """`bw_memory` of bitwright.h: an address and the number of bytes there."""

    _fields_ = (("at", c_void_p), ("bytes", c_int64))


class BwMatrix(Structure):
    """`bw_matrix` of bitwright.h."""

    _fields_ = (
        ("weights", c_int32), ("bits", c_int32), ("scales", c_int32), ("zero", c_int32), ("out_features", c_int32),
        ("in_features", c_int32), ("group_size", c_int32), ("block", c_int32), ("planes", c_int32),
        ("super_block_size", c_int32),
        ("data", Memory), ("scale", Memory), ("offset", Memory), ("order", Memory), ("bias", Memory), ("steps", Memory),
    )  # fmt: skip


class BwActivations(Structure):
    """`bw_activations` of bitwright.h."""

    _fields_ = (
        ("x", Memory), ("rows", c_int32), ("in_features", c_int32), ("block", c_int32), ("planes", c_int32),
        ("stride", c_int64), ("values", Memory), ("scale", Memory), ("sum", Memory), ("total", Memory),
    )  # fmt: skip


_FILES = ExitStack()
_SIGNATURES = {
    "bw_activation_bytes": (c_int64, [POINTER(BwActivations)]),
    "bw_place_activations": (c_int32, [POINTER(BwActivations), c_void_p, c_int64]),
    "bw_multiply": (c_int32, [POINTER(BwMatrix), POINTER(BwActivations), c_void_p, c_int64, c_int32]),
    "bw_matrix_row": (c_int32, [POINTER(BwMatrix), c_int32, c_void_p, c_int64]),
    "bw_data_bytes": (c_int64, [POINTER(BwMatrix)]),
    "bw_pack": (c_int32, [POINTER(BwMatrix), c_void_p, c_int64, c_int32, c_int32]),
    "bw_reason": (c_char_p, [c_int32]),
    "bw_instructions": (c_int32, []),
}


def load() -> ctypes.CDLL:
    """Return the kernels, compiling them if necessary; later calls return the same object.

    Raises:
        MissingDependency: they cannot be compiled or loaded; with the reason.
    """
    # Called several times for every product, so that the folder is not checked here.
    return _load(os.environ.get("BITWRIGHT_NATIVE_FLAGS", ""), os.environ.get("BITWRIGHT_HOME", ""))


def _opened(path: Path) -> ctypes.CDLL:
    """Load a library. Its file stays open until the process ends because it is loaded by its descriptor."""
    return ctypes.CDLL(_FILES.enter_context(build.loadable(path)))


@lru_cache(maxsize=8)
def _load(flags: str, home: str) -> ctypes.CDLL:
    """Implement `load` for the values of two environment variables."""
    path = build.library()
    try:
        found = _opened(path)
    except OSError:
        build.discard(path)
        try:
            found = _opened(build.library())
        except OSError as error:
            raise MissingDependency(f"The compiled kernels cannot be loaded ({error}).", "") from error
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(found, name)
        function.restype, function.argtypes = result, arguments
    return found


@lru_cache(maxsize=1)
def why_not() -> str:
    """Return why the kernels cannot be used, as one sentence; "" if they can. The first call compiles them."""
    try:
        load()
    except BitwrightError as error:
        return error.message
    return ""


def instructions() -> str:
    """Return the names of the instruction sets that the kernels were compiled for."""
    bits = load().bw_instructions()
    width = (
        "AVX-512" if bits & AVX512 else "AVX2" if bits & AVX2 else "NEON" if bits & NEON else "no vector instructions"
    )
    return f"{width} with VNNI" if bits & VNNI else width


def checked(result: int) -> int:
    """Return the result of a compiled function, which is negative for invalid arguments.

    Raises:
        CorruptFile: the result is negative; with the reason.
    """
    if result < 0:
        reason = load().bw_reason(int(result)).decode("ascii")
        raise CorruptFile(f"The compiled program cannot compute this model: {reason}.", "Fetch the model again.")
    return result


def memory(tensor: Tensor, at: int = 0) -> Memory:
    """Return the memory of a tensor from element `at` on.

    Raises:
        ValueError: the tensor is not contiguous or not on the CPU.
    """
    if tensor.device.type != "cpu" or not tensor.is_contiguous() or not 0 <= at <= tensor.numel():
        raise ValueError(f"compiled code cannot read a tensor on {tensor.device} with the strides {tensor.stride()}")
    size = tensor.element_size()
    return Memory(tensor.data_ptr() + at * size, (tensor.numel() - at) * size)


def place(activations: BwActivations, memory: Tensor) -> None:
    """Assign memory of `activation_bytes` to the parts of the activations."""
    checked(load().bw_place_activations(byref(activations), memory.data_ptr(), memory.nbytes))


def activation_bytes(activations: BwActivations) -> int:
    """Return the bytes that the activations need for their rows, inputs, block and planes."""
    return checked(int(load().bw_activation_bytes(byref(activations))))
