"""Too little memory, said in a sentence: before it is missing, and when it is."""

from __future__ import annotations

import errno

import pytest
import torch

from core.errors import BadInput, OutOfMemory
from core.inference.machine import Device
from core.inference.memory import check_room, memory_errors


def test_what_fits_is_let_through() -> None:
    check_room(Device("cpu", "cpu", "CPU", 2000, 1000), 900, "The model")


def test_what_does_not_fit_is_refused_with_both_numbers() -> None:
    with pytest.raises(OutOfMemory) as caught:
        check_room(Device("cuda:0", "cuda", "Some card", 8_000_000_000, 2_000_000_000), 3_000_000_000, "The model")
    assert caught.value.message == "The model needs 3 GB of memory, and 2 GB of Some card are free."
    assert "--backend portable" in caught.value.hint


def test_a_device_that_does_not_say_what_is_free_is_tried() -> None:
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
def test_all_ways_of_running_out_are_one_error(error: Exception) -> None:
    with (
        pytest.raises(OutOfMemory, match=r"Loading the model took more memory than there is\."),
        memory_errors("Loading the model"),
    ):
        raise error


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), OSError(errno.ENOENT, "gone"), BadInput("No.", "")])
def test_other_errors_stay_what_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, memory_errors("Loading the model"):
        raise error
    assert caught.value is error
