"""Memory that a model needs and a device has: said in one sentence before it is missing, and when it is.

Knows bytes and devices, nothing of models.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from typing import Final

from core.errors import OutOfMemory, no_memory
from core.inference.machine import Device
from core.wording import human

SMALLER: Final = "Close other programs, or choose fewer bits, --backend portable, a smaller model or another device."
_SLACK: Final = 1.02
"""What lies beside the weights while a model is loaded, as a part of them."""


def check_room(device: Device, needed: int, what: str) -> None:
    """Refuse what cannot fit, before a machine without room begins to swap or ends the process.

    Args:
        device: with its free memory as it was a moment ago; one that does not say has 0 in all.
        needed: bytes; what: that need them, as the subject of a sentence.

    Raises:
        OutOfMemory: it does not fit.
    """
    if device.total_memory and needed * _SLACK > device.free_memory:
        raise OutOfMemory(
            f"{what} needs {human(needed)} of memory, and {human(device.free_memory)} of {device.name} are free.",
            SMALLER,
        )


@contextlib.contextmanager
def memory_errors(what: str) -> Iterator[None]:
    """Turn the many ways in which memory runs out inside into the one that users read.

    Raises:
        OutOfMemory: naming `what`, such as "Loading the model".
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not no_memory(error):
            raise
        raise OutOfMemory(f"{what} took more memory than there is.", SMALLER) from error


def give_back_memory() -> None:
    """Return freed pages to the system, where the C library keeps them (glibc).

    Every block of a run frees and takes the same sizes, yet without this the heap grew by 15 MB a block for 30 blocks.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)
