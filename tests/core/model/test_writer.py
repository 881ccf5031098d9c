"""Checkpoints written tensor by tensor into files with a layout fixed in advance."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

from core.errors import DiskFull, OutputProblem
from core.files import free_bytes
from core.model.headers import DTYPE_BITS, read_folder
from core.model.writer import TORCH_DTYPES, CheckpointWriter, TensorPlan

PLANS = [
    TensorPlan("b", "BF16", (3, 5)),
    TensorPlan("a", "I32", (4, 2)),
    TensorPlan("scalar", "F32", ()),
    TensorPlan("empty", "F16", (0, 7)),
    TensorPlan("Ünïcode \"quoted\"", "U8", (3,)),
]  # fmt: skip


def random(plan: TensorPlan) -> torch.Tensor:
    generator = torch.Generator().manual_seed(len(plan.name))
    dtype = TORCH_DTYPES[plan.dtype]
    return torch.randint(0, 100, plan.shape, generator=generator).to(dtype)


def write_all(folder: Path, plans: list[TensorPlan], limit: int = 10**9) -> dict[str, torch.Tensor]:
    tensors = {plan.name: random(plan) for plan in plans}
    with CheckpointWriter(folder, plans, limit) as writer:
        for name in sorted(tensors):  # not the order of the plan
            writer.write(name, tensors[name])
    return tensors


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype and torch.equal(left[name], right[name]) for name in left
    )


def test_the_safetensors_library_reads_the_file(tmp_path: Path) -> None:
    tensors = write_all(tmp_path, PLANS)
    assert same(load_file(tmp_path / "model.safetensors"), tensors)


def test_one_file_needs_no_index(tmp_path: Path) -> None:
    write_all(tmp_path, PLANS)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_the_metadata_contain_the_format_pt(tmp_path: Path) -> None:
    write_all(tmp_path, PLANS)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_the_data_begin_at_a_multiple_of_eight(tmp_path: Path) -> None:
    write_all(tmp_path, PLANS)
    length = int.from_bytes((tmp_path / "model.safetensors").read_bytes()[:8], "little")
    assert length % 8 == 0


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    plans=st.lists(
        st.builds(
            TensorPlan,
            st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
            st.sampled_from(["BF16", "F16", "F32", "I32", "U8", "I64"]),
            st.lists(st.integers(0, 4), max_size=3).map(tuple),
        ),
        unique_by=lambda plan: plan.name,
        max_size=8,
    ).filter(lambda plans: all(plan.name != "__metadata__" for plan in plans)),
    limit=st.integers(1, 200),
)
def test_any_plan_with_any_shard_size_is_read_back(
    plans: list[TensorPlan], limit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any")
    tensors = write_all(folder, plans, limit)
    files = sorted(folder.glob("*.safetensors"))
    found: dict[str, torch.Tensor] = {}
    for file in files:
        found |= load_file(file)
    assert same(found, tensors)
    assert read_folder(folder).keys() == tensors.keys()


def test_every_tensor_is_aligned_to_its_element_size(tmp_path: Path) -> None:
    write_all(tmp_path, PLANS)
    for info in read_folder(tmp_path).values():
        assert info.start * 8 % DTYPE_BITS[info.dtype] == 0


def test_the_order_of_the_plan_is_kept_if_alignment_permits(tmp_path: Path) -> None:
    plans = [TensorPlan("z", "F16", (8,)), TensorPlan("a", "I32", (2,)), TensorPlan("m", "F16", (4,))]
    write_all(tmp_path, plans)
    assert list(read_folder(tmp_path)) == ["z", "a", "m"]


@pytest.fixture
def shards(tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    plans = [TensorPlan(f"t{number}", "F16", (50,)) for number in range(5)] + [TensorPlan("big", "F32", (500,))]
    return tmp_path, write_all(tmp_path, plans, 250)


def test_shards_are_numbered(shards: tuple[Path, dict[str, torch.Tensor]]) -> None:
    names = sorted(path.name for path in shards[0].glob("*.safetensors"))
    assert names == [f"model-{number:05d}-of-00004.safetensors" for number in range(1, 5)]


def test_the_index_lists_the_file_of_each_tensor(shards: tuple[Path, dict[str, torch.Tensor]]) -> None:
    folder, tensors = shards
    weight_map = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    assert weight_map.keys() == tensors.keys()
    assert all(name in load_file(folder / file) for name, file in weight_map.items())


def test_the_index_has_the_total_of_the_tensors(shards: tuple[Path, dict[str, torch.Tensor]]) -> None:
    folder, tensors = shards
    metadata = json.loads((folder / "model.safetensors.index.json").read_text())["metadata"]
    assert metadata["total_size"] == sum(tensor.nbytes for tensor in tensors.values())


def test_total_bytes_is_the_size_of_the_files(tmp_path: Path) -> None:
    plans = [TensorPlan(f"t{number}", "F16", (50,)) for number in range(5)]
    writer = CheckpointWriter(tmp_path, plans, 250)
    for plan in plans:
        writer.write(plan.name, random(plan))
    writer.close()
    assert writer.total_bytes == sum(path.stat().st_size for path in tmp_path.glob("*.safetensors"))


def test_close_returns_the_files_and_the_index(tmp_path: Path) -> None:
    plans = [TensorPlan(f"t{number}", "F16", (50,)) for number in range(2)]
    writer = CheckpointWriter(tmp_path, plans, 100)
    for plan in plans:
        writer.write(plan.name, random(plan))
    paths = writer.close()
    assert sorted(paths) == sorted(tmp_path.iterdir())
    assert paths[-1].name == "model.safetensors.index.json"


def test_a_transposed_view_is_written_in_row_major_order(tmp_path: Path) -> None:
    tensor = torch.arange(6, dtype=torch.int32).reshape(2, 3).T
    with CheckpointWriter(tmp_path, [TensorPlan("t", "I32", (3, 2))]) as writer:
        writer.write("t", tensor)
    assert torch.equal(load_file(tmp_path / "model.safetensors")["t"], tensor)


def test_write_bytes_keeps_the_bytes(tmp_path: Path) -> None:
    tensor = torch.tensor([1.5, float("nan"), -0.0], dtype=torch.bfloat16)
    with CheckpointWriter(tmp_path, [TensorPlan("t", "BF16", (3,))]) as writer:
        data: Any = tensor.view(torch.uint8).numpy()
        writer.write_bytes("t", memoryview(data))
    assert torch.equal(load_file(tmp_path / "model.safetensors")["t"].view(torch.int16), tensor.view(torch.int16))


def test_no_safetensors_file_exists_before_close(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path, PLANS)
    assert not list(tmp_path.glob("*.safetensors"))
    writer.abort()


def test_abort_removes_all_files(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path, PLANS)
    writer.write("a", random(PLANS[1]))
    writer.abort()
    assert not list(tmp_path.iterdir())


def test_an_exception_in_the_with_block_removes_all_files(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), CheckpointWriter(tmp_path, PLANS):
        raise RuntimeError
    assert not list(tmp_path.iterdir())


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[CheckpointWriter]:
    writer = CheckpointWriter(tmp_path, [TensorPlan("t", "I32", (2, 3)), TensorPlan("u", "I32", (1,))])
    yield writer
    writer.abort()


@pytest.mark.parametrize(
    "tensor",
    [torch.zeros(3, 2, dtype=torch.int32), torch.zeros(2, 3), torch.zeros(6, dtype=torch.int32)],
    ids=["shape", "dtype", "flat"],
)
def test_another_shape_or_dtype_is_an_error(writer: CheckpointWriter, tensor: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="planned was"):
        writer.write("t", tensor)


def test_bytes_of_another_length_are_an_error(writer: CheckpointWriter) -> None:
    with pytest.raises(ValueError, match="planned were 24"):
        writer.write_bytes("t", memoryview(bytes(23)))


def test_writing_a_tensor_twice_is_an_error(writer: CheckpointWriter) -> None:
    writer.write("t", torch.zeros(2, 3, dtype=torch.int32))
    with pytest.raises(ValueError, match="already written"):
        writer.write("t", torch.zeros(2, 3, dtype=torch.int32))


def test_an_unplanned_tensor_is_an_error(writer: CheckpointWriter) -> None:
    with pytest.raises(ValueError, match="not planned"):
        writer.write("v", torch.zeros(1))


def test_closing_with_tensors_missing_is_an_error(writer: CheckpointWriter) -> None:
    writer.write("t", torch.zeros(2, 3, dtype=torch.int32))
    assert writer.missing == ["u"]
    with pytest.raises(ValueError, match="such as u"):
        writer.close()


def test_a_name_planned_twice_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="twice"):
        CheckpointWriter(tmp_path, [TensorPlan("t", "I32", (1,)), TensorPlan("t", "I32", (2,))])


def test_too_little_disk_space_is_reported_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(DiskFull, match="The output needs"):
        CheckpointWriter(tmp_path, [TensorPlan("t", "U8", (free_bytes(tmp_path) + 10**12,))])
    assert not list(tmp_path.iterdir())


def test_a_disk_that_becomes_full_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(DiskFull, match="is full"):
        CheckpointWriter(tmp_path, PLANS)
    assert not list(tmp_path.iterdir())


def test_a_file_system_without_preallocation_is_supported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unsupported, raising=False)
    tensors = write_all(tmp_path, PLANS)
    assert same(load_file(tmp_path / "model.safetensors"), tensors)


def test_a_missing_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(OutputProblem, match="cannot be written"):
        CheckpointWriter(tmp_path / "missing", PLANS)


def test_a_checkpoint_is_never_overwritten(tmp_path: Path) -> None:
    write_all(tmp_path, PLANS)
    with pytest.raises(OutputProblem, match="exists already"):
        CheckpointWriter(tmp_path, PLANS)


def test_partial_files_of_a_killed_run_are_overwritten(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.partial").write_bytes(b"x" * 10**6)
    tensors = write_all(tmp_path, PLANS)
    assert same(load_file(tmp_path / "model.safetensors"), tensors)
    assert len(list(tmp_path.iterdir())) == 1
