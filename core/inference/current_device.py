"""The current device of torch, on which kernels outside of torch are launched."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def current_device(device: torch.device) -> Iterator[None]:
    """Make `device` the current device, on which Triton launches regardless of its arguments' device.

    The current device is a setting of a thread.
    """
    module = getattr(torch, device.type)
    if device.type == "cpu" or module.current_device() == device.index:
        yield
        return
    with module.device(device):
        yield
