"""Tests of the checks of a job before it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.errors import DiskFull
from core.estimation import preflight
from core.estimation.preflight import check_disk, check_room, is_folder, read_tree
from core.spec import from_options
from tests.core.tiny_model import save_model


@pytest.mark.parametrize("names", [["m.gguf"], ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]])
def test_a_folder_with_one_gguf_file_is_not_a_safetensors_folder(names: list[str], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert not is_folder(str(tmp_path))


def test_a_folder_of_safetensors_is_recognized(tmp_path: Path) -> None:
    assert is_folder(str(save_model(tmp_path / "m")))


@pytest.mark.parametrize("name", ["demo", "owner/model", "a\0b"])
def test_other_names_are_not_folders(name: str) -> None:
    assert not is_folder(name)


@pytest.mark.parametrize(
    ("options", "files"), [({"low_memory": True}, True), ({"memory": 1_200_000_000}, True), ({}, False)]
)
def test_the_files_of_a_run_with_little_memory_need_disk_space(
    options: dict[str, Any], files: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save_model(tmp_path / "m")
    monkeypatch.setattr(preflight, "free_bytes", lambda _path: 10**9)
    spec = from_options(model, tmp_path / "out", group_size=32, samples=10_000, **options)
    if not files:  # the caches are in memory
        check_room(spec, read_tree(model))
        return
    with pytest.raises(DiskFull, match="temporary files"):
        check_room(spec, read_tree(model))


def test_output_and_files_on_one_volume_need_the_sum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "free_bytes", lambda _path: 10_000_000)
    check_disk(tmp_path / "out", 6_000_000, tmp_path / "jobs", 4_000_000)
    check_disk(tmp_path / "out", 10_000_000, tmp_path / "jobs", 0)
    with pytest.raises(DiskFull, match="The output and the temporary files need about 11 MB") as caught:
        check_disk(tmp_path / "out", 6_000_000, tmp_path / "jobs", 5_000_000)
    assert "BITWRIGHT_HOME" in caught.value.hint
    with pytest.raises(DiskFull, match="The output needs about 11 MB"):
        check_disk(tmp_path / "out", 11_000_000, tmp_path / "jobs", 0)


def test_files_on_another_volume_need_its_space_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Path("/proc")
    if not other.is_dir():
        pytest.skip("requires a second volume")
    monkeypatch.setattr(preflight, "free_bytes", lambda path: 5_000_000 if path == other else 10_000_000)
    check_disk(tmp_path / "out", 9_000_000, other, 4_000_000)
    with pytest.raises(DiskFull, match="The temporary files of this run need about 6 MB"):
        check_disk(tmp_path / "out", 9_000_000, other, 6_000_000)
