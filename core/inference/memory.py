"""Memory checks: errors before and when memory runs out, and the release of freed memory to the system."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from core.errors import OutOfMemory, no_memory
from core.inference.machine import Device
from core.wording import human

if TYPE_CHECKING:
    from torch import Tensor

_DONT_NEED: Final = 4
"""Value of MADV_DONTNEED on Linux."""
SMALLER: Final = "Close other programs, or choose fewer bits, --backend portable, a smaller model or another device."
_SLACK: Final = 1.02
"""Memory used while loading, relative to the size of the weights."""


def check_room(device: Device, needed: int, what: str) -> None:
    """Check that `needed` bytes fit into the device's memory, before the system swaps or kills the process.

    Args:
        device: device with its current free memory; not checked if its total memory is 0 (unknown).
        needed: bytes.
        what: the subject of the error message, such as a model's name.

    Raises:
        OutOfMemory: they do not fit.
    """
    if device.total_memory and needed * _SLACK > device.free_memory:
        raise OutOfMemory(
            f"{what} needs {human(needed)} of memory, but {device.name} has only {human(device.free_memory)} free.",
            SMALLER,
        )


@contextlib.contextmanager
def memory_errors(what: str) -> Iterator[None]:
    """Convert every exception that means "out of memory" into `OutOfMemory`.

    Args:
        what: the subject of the error message, such as "Loading the model".

    Raises:
        OutOfMemory: memory ran out inside the `with` block.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not no_memory(error):
            raise
        raise OutOfMemory(f"{what} needs more memory than is available.", SMALLER) from error


def give_back_memory() -> None:
    """Return freed pages to the system with glibc's `malloc_trim`; does nothing on other systems than Linux.

    Without it, the heap of a run grew by 15 MB per block over 30 blocks, although every block allocates the same sizes.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def drop_pages(mapped: Tensor) -> None:
    """Remove the pages of a tensor in a shared memory-mapped file from the memory of the process.

    The values stay in the file, or in the system's cache of it, and are mapped again when they are used. Without this,
    a process that reads a large file from begin to end needs as much resident memory as the file is large. Does nothing
    on other systems than Linux.
    """
    if sys.platform == "linux" and mapped.numel():
        begin = mapped.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
        end = mapped.data_ptr() + mapped.untyped_storage().nbytes()
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL("libc.so.6")
            library.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _DONT_NEED)
