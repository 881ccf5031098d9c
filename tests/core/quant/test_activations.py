"""Hidden states in memory and in a file."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest
import torch

from core.quant.activations import Activations


@pytest.mark.parametrize("in_file", [False, True])
def test_what_is_written_is_read(tmp_path: Path, in_file: bool) -> None:
    cache = Activations((5, 3, 4), torch.float32, tmp_path / "cache" if in_file else None)
    value = torch.randn(2, 3, 4)
    cache.write(slice(1, 3), value)
    assert torch.equal(cache.read(torch.tensor([2, 1]), torch.device("cpu")), value.flip(0))
    assert len(cache) == 5


def test_a_sixteen_bit_cache_reads_as_fp32() -> None:
    cache = Activations((1, 2, 2), torch.bfloat16)
    cache.write(slice(0, 1), torch.full((1, 2, 2), 1.00390625))
    got = cache.read(slice(0, 1), torch.device("cpu"))
    assert got.dtype == torch.float32
    assert got[0, 0, 0] == 1.0


@pytest.mark.parametrize("in_file", [False, True])
def test_what_is_read_does_not_change_when_it_is_overwritten_in_a_file(tmp_path: Path, in_file: bool) -> None:
    cache = Activations((2, 1024, 16), torch.float32, tmp_path / "cache" if in_file else None)
    cache.write(slice(0, 2), torch.ones(2, 1024, 16))
    before = cache.read(slice(0, 1), torch.device("cpu")).clone()
    cache.write(slice(1, 2), torch.zeros(1, 1024, 16))
    assert torch.equal(cache.read(slice(0, 1), torch.device("cpu")), before)


@pytest.mark.skipif(sys.platform != "linux", reason="the pages of a file are only dropped there")
def test_those_in_a_file_need_no_resident_memory(tmp_path: Path) -> None:
    cache = Activations((64, 1 << 18), torch.float32, tmp_path / "cache")
    value, process = torch.ones(1, 1 << 18), psutil.Process()
    cache.write(slice(0, 1), value)
    before = process.memory_info().rss
    for number in range(64):
        cache.write(slice(number, number + 1), value)
        cache.read(slice(number, number + 1), torch.device("cpu"))
    assert process.memory_info().rss - before < cache.data.nbytes // 4
    assert bool((cache.data == 1).all())


@pytest.mark.skipif(os.name != "posix", reason="only there can an open file lose its name")
def test_the_file_has_no_name_that_a_killed_run_could_leave(tmp_path: Path) -> None:
    cache = Activations((4, 8, 16), torch.bfloat16, tmp_path / "cache")
    assert list(tmp_path.iterdir()) == []
    cache.write(slice(0, 4), torch.ones(4, 8, 16))
    assert cache.read(slice(3, 4), torch.device("cpu")).sum() == 8 * 16


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="disk space cannot be reserved")
def test_a_file_that_does_not_fit_on_the_disk_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"space left|too large"):
        Activations((1 << 40, 1 << 20), torch.bfloat16, tmp_path / "cache")
