"""Tests of the memory check before loading and of the error when memory runs out."""

from __future__ import annotations

import errno

import pytest
import torch

from core.errors import BadInput, OutOfMemory
from core.inference.machine import Device
from core.inference.memory import check_room, memory_errors


def test_a_size_that_fits_is_accepted() -> None:
    check_room(Device("cpu", "cpu", "CPU", 2000, 1000), 900, "The model")


def test_a_size_that_does_not_fit_is_refused_with_both_sizes() -> None:
    with pytest.raises(OutOfMemory) as caught:
        check_room(Device("cuda:0", "cuda", "Some card", 8_000_000_000, 2_000_000_000), 3_000_000_000, "The model")
    assert caught.value.message == "The model needs 3 GB of memory, but Some card has only 2 GB free."
    assert "--backend portable" in caught.value.hint


def test_a_device_with_unknown_memory_is_accepted() -> None:
    check_room(Device("xpu:0", "xpu", "Some card", 0, 0), 1 << 60, "The model")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_every_out_of_memory_exception_becomes_out_of_memory(error: Exception) -> None:
    with (
        pytest.raises(OutOfMemory, match=r"Loading the model needs more memory than is available\."),
        memory_errors("Loading the model"),
    ):
        raise error


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), OSError(errno.ENOENT, "gone"), BadInput("No.", "")])
def test_other_exceptions_are_not_changed(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, memory_errors("Loading the model"):
        raise error
    assert caught.value is error
