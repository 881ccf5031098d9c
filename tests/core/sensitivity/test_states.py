"""The file of hidden states."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from core.errors import DiskFull
from core.sensitivity.states import HiddenStates

CPU = torch.device("cpu")


def test_samples_are_written_and_read_in_any_order(tmp_path: Path) -> None:
    values = [torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(number)) for number in range(3)]
    with HiddenStates((5, 3, 4), torch.float32, tmp_path) as states:
        for number in (2, 0, 1):
            for part in (slice(2, 5), slice(0, 2)):
                states.write(number, part, values[number][part])
        for number, value in enumerate(values):
            assert torch.equal(states.read(number, slice(1, 4), CPU), value[1:4])


def test_the_last_batch_may_be_short(tmp_path: Path) -> None:
    with HiddenStates((3, 2, 2), torch.float32, tmp_path) as states:
        states.write(0, slice(0, 4), torch.ones(3, 2, 2))
        assert states.read(0, slice(2, 4), CPU).shape == (1, 2, 2)


def test_values_are_stored_in_the_given_dtype(tmp_path: Path) -> None:
    with HiddenStates((1, 1, 2), torch.bfloat16, tmp_path) as states:
        states.write(0, slice(0, 1), torch.tensor([[[1.0, 1.001]]]))
        assert torch.equal(states.read(0, slice(0, 1), CPU), torch.ones(1, 1, 2))


def test_the_file_has_no_name(tmp_path: Path) -> None:
    with HiddenStates((1, 2, 2), torch.float32, tmp_path) as states:
        states.write(0, slice(0, 1), torch.ones(1, 2, 2))
        assert list(tmp_path.iterdir()) == []
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_raises_disk_full() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    with HiddenStates((1, 2, 2), torch.float32, Path("/tmp")) as states:
        states._file.close()
        states._file = full.open("r+b", buffering=0)  # type: ignore[assignment]
        with pytest.raises(DiskFull):
            states.write(0, slice(0, 1), torch.ones(1, 2, 2))
