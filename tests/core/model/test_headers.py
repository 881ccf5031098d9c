"""Safetensors headers: files of the library are read back, and invalid headers are rejected."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from core.errors import CorruptFile, ModelNotFound
from core.model.headers import DTYPE_BITS, INDEX_FILE, read_folder, read_header

TABLE: dict[str, Any] = {
    "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
    "b": {"dtype": "BF16", "shape": [3], "data_offsets": [16, 22]},
}


def make(path: Path, table: dict[str, Any] | str | bytes, data: int = 22, claim: int | None = None) -> Path:
    text = table if isinstance(table, bytes) else (table if isinstance(table, str) else json.dumps(table)).encode()
    path.write_bytes(struct.pack("<Q", len(text) if claim is None else claim) + text + bytes(data))
    return path


def changed(name: str, **keys: Any) -> dict[str, Any]:
    return {**TABLE, name: {**TABLE[name], **keys}}


def test_offsets_are_absolute_positions_in_the_file(tmp_path: Path) -> None:
    path = make(tmp_path / "x.safetensors", TABLE)
    found = read_header(path)
    assert found["b"].end == path.stat().st_size
    assert (found["a"].nbytes, found["a"].numel, found["a"].file) == (16, 4, "x.safetensors")


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(lambda n: n != "__metadata__"),
        st.tuples(
            st.sampled_from([torch.float32, torch.bfloat16, torch.int32, torch.bool, torch.float8_e4m3fn]),
            st.lists(st.integers(0, 4), max_size=4),
        ),
        max_size=6,
    )
)
def test_files_of_the_safetensors_library_are_read(
    tmp_path_factory: pytest.TempPathFactory, table: dict[str, tuple[torch.dtype, list[int]]]
) -> None:
    tensors = {name: torch.zeros(shape).to(dtype) for name, (dtype, shape) in table.items()}
    path = tmp_path_factory.mktemp("written") / "m.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    found = read_header(path)
    assert {name: (info.shape, info.nbytes) for name, info in found.items()} == {
        name: (tuple(tensor.shape), tensor.nbytes) for name, tensor in tensors.items()
    }


INVALID: dict[str, dict[str, Any] | str | bytes] = {
    "end past the file": changed("b", data_offsets=[16, 23]),
    "overlap": changed("b", data_offsets=[14, 20]),
    "hole": changed("b", data_offsets=[18, 24], shape=[3]),
    "backwards": changed("b", data_offsets=[22, 16]),
    "negative offset": changed("a", data_offsets=[-16, 0]),
    "three offsets": changed("a", data_offsets=[0, 8, 16]),
    "float offset": changed("a", data_offsets=[0.0, 16.0]),
    "true as a length": changed("a", shape=[True, 4]),
    "shape against bytes": changed("a", shape=[2, 3]),
    "dtype against bytes": changed("a", dtype="F64"),
    "unknown dtype": changed("a", dtype="Q4_K"),
    "dtype is a list": changed("a", dtype=["F32"]),
    "huge shape": changed("a", shape=[2**62, 2**62]),
    "shape beyond 64 bits": changed("a", shape=[10**30]),
    "many dimensions": changed("a", shape=[2] * 100_000),
    "negative length": changed("a", shape=[-2, -2]),
    "no shape": {**TABLE, "a": {"dtype": "F32", "data_offsets": [0, 16]}},
    "entry is a number": {**TABLE, "a": 3},
    "metadata is a list": {**TABLE, "__metadata__": []},
    "bytes without a tensor": {"a": TABLE["a"]},
    "lone surrogate": '{"\\ud800": {"dtype": "F32", "shape": [], "data_offsets": [0, 22]}}',
    "duplicate key": '{"a": {"dtype": "U8", "shape": [22], "data_offsets": [0, 22]}, "a": 1}',
    "a list": "[1, 2]",
    "a list after a brace": '{"a": [}',
    "not UTF-8": b'{"\xff\xfe": 1}',
    "deep nesting": '{"a": ' + "[" * 200_000,
    "number of a million digits": '{"a": ' + "9" * 1_000_000 + "}",
    "leading space": " " + json.dumps(TABLE),
}


@pytest.mark.parametrize("case", INVALID, ids=str)
def test_an_invalid_header_is_corrupt(tmp_path: Path, case: str) -> None:
    with pytest.raises(CorruptFile):
        read_header(make(tmp_path / "m.safetensors", INVALID[case]))


@pytest.mark.parametrize("claim", [0, 1, 2**60, 2**63, 2**64 - 1, 1000])
def test_an_invalid_header_length_is_corrupt(tmp_path: Path, claim: int) -> None:
    with pytest.raises(CorruptFile, match="header"):
        read_header(make(tmp_path / "m.safetensors", TABLE, claim=claim))


@pytest.mark.parametrize("size", [0, 7, 8, 9, 100])
def test_a_truncated_file_is_corrupt(tmp_path: Path, size: int) -> None:
    path = make(tmp_path / "m.safetensors", TABLE)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CorruptFile):
        read_header(path)


def test_bytes_behind_the_last_tensor_are_corrupt(tmp_path: Path) -> None:
    with pytest.raises(CorruptFile, match="describes"):
        read_header(make(tmp_path / "m.safetensors", TABLE, data=23))


def test_a_missing_file_is_corrupt(tmp_path: Path) -> None:
    with pytest.raises(CorruptFile, match="cannot be read"):
        read_header(tmp_path / "none.safetensors")


def test_messages_show_no_control_characters(tmp_path: Path) -> None:
    path = make(tmp_path / "m.safetensors", {"\x1b[31m\n" * 50: {"dtype": "F32", "shape": [1], "data_offsets": [0, 9]}})
    with pytest.raises(CorruptFile) as caught:
        read_header(path)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 300


_entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(sorted(DTYPE_BITS)),
        "shape": st.lists(st.integers(0, 5), max_size=3),
        "data_offsets": st.lists(st.integers(0, 24), min_size=2, max_size=2),
    }
)


@given(st.dictionaries(st.text("abc", min_size=1, max_size=2), _entries, max_size=3), st.integers(0, 24))
@example(TABLE, 22)
def test_a_header_that_the_library_rejects_is_rejected(
    tmp_path_factory: pytest.TempPathFactory, table: dict[str, Any], data: int
) -> None:
    path = make(tmp_path_factory.mktemp("fuzz") / "m.safetensors", table, data)
    try:
        found = read_header(path)
    except CorruptFile:
        return
    try:
        with safe_open(path, "pt") as opened:
            assert set(opened.keys()) == set(found)
    except SafetensorError as error:
        raise AssertionError(f"the library rejects this: {error}") from error


@given(st.binary(max_size=200), st.integers(0, 2**64 - 1) | st.integers(0, 200))
def test_random_bytes_are_corrupt_or_read_within_their_size(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, claim: int
) -> None:
    path = tmp_path_factory.mktemp("noise") / "m.safetensors"
    path.write_bytes(struct.pack("<Q", claim) + noise)
    try:
        found = read_header(path)
    except CorruptFile:
        return
    assert sum(info.nbytes for info in found.values()) <= len(noise)


def shards(folder: Path) -> dict[str, str]:
    save_file({"x": torch.zeros(2)}, folder / "model-00001-of-00002.safetensors")
    save_file({"y": torch.zeros(3)}, folder / "model-00002-of-00002.safetensors")
    return {"x": "model-00001-of-00002.safetensors", "y": "model-00002-of-00002.safetensors"}


def index(folder: Path, weight_map: Any) -> None:
    (folder / INDEX_FILE).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def test_shards_are_merged(tmp_path: Path) -> None:
    index(tmp_path, shards(tmp_path))
    assert {name: info.file for name, info in read_folder(tmp_path).items()} == shards(tmp_path)


def test_a_single_file_takes_precedence_over_an_index(tmp_path: Path) -> None:
    index(tmp_path, shards(tmp_path))
    save_file({"z": torch.zeros(1)}, tmp_path / "model.safetensors")
    assert list(read_folder(tmp_path)) == ["z"]


def test_shards_are_read_without_an_index(tmp_path: Path) -> None:
    shards(tmp_path)
    assert set(read_folder(tmp_path)) == {"x", "y"}


def test_a_tensor_with_different_values_in_two_files_is_corrupt(tmp_path: Path) -> None:
    index(tmp_path, shards(tmp_path))
    save_file({"x": torch.ones(2), "y": torch.zeros(3)}, tmp_path / "model-00002-of-00002.safetensors")
    with pytest.raises(CorruptFile, match="x is in both"):
        read_folder(tmp_path)


def test_a_later_file_that_the_index_lists_replaces_a_tensor(tmp_path: Path) -> None:
    known = shards(tmp_path)
    save_file({"x": torch.ones(2), "y": torch.zeros(3)}, tmp_path / "model-00002-of-00002.safetensors")
    index(tmp_path, dict.fromkeys(known, "model-00002-of-00002.safetensors") | {"other": known["x"]})
    assert {name: info.file for name, info in read_folder(tmp_path).items()} == dict.fromkeys(known, known["y"])


def test_a_tensor_with_equal_values_in_two_files_is_accepted(tmp_path: Path) -> None:
    index(tmp_path, shards(tmp_path))
    save_file({"x": torch.zeros(2), "y": torch.zeros(3)}, tmp_path / "model-00002-of-00002.safetensors")
    assert set(read_folder(tmp_path)) == {"x", "y"}


@pytest.mark.parametrize("beside", ["adapter_model", "consolidated", "optimizer", "other"])
def test_files_beside_numbered_shards_are_not_part_of_the_model(tmp_path: Path, beside: str) -> None:
    shards(tmp_path)
    save_file({"z": torch.zeros(1)}, tmp_path / f"{beside}.safetensors")
    assert set(read_folder(tmp_path)) == {"x", "y"}


def test_an_adapter_alone_is_not_a_model(tmp_path: Path) -> None:
    save_file({"z": torch.zeros(1)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ModelNotFound):
        read_folder(tmp_path)


def test_a_missing_shard_is_reported_without_an_index(tmp_path: Path) -> None:
    shards(tmp_path)
    (tmp_path / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(CorruptFile, match="Part 1 of 2"):
        read_folder(tmp_path)


def test_a_missing_shard_of_an_index_is_reported(tmp_path: Path) -> None:
    index(tmp_path, shards(tmp_path))
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CorruptFile, match=r"lists model-00002-of-00002\.safetensors, which is missing"):
        read_folder(tmp_path)


def test_a_missing_shard_is_accepted_if_others_contain_its_tensors(tmp_path: Path) -> None:
    table = shards(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    save_file({"x": torch.zeros(2), "y": torch.zeros(3)}, tmp_path / "model-00001-of-00002.safetensors")
    index(tmp_path, table)
    assert set(read_folder(tmp_path)) == {"x", "y"}


def test_a_broken_symbolic_link_is_reported(tmp_path: Path) -> None:
    index(tmp_path, shards(tmp_path))
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    (tmp_path / "model-00002-of-00002.safetensors").symlink_to(tmp_path / "nowhere")
    with pytest.raises(CorruptFile, match="broken symbolic link"):
        read_folder(tmp_path)


def test_a_git_lfs_pointer_is_reported(tmp_path: Path) -> None:
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{7:064d}\nsize 269060552\n"
    (tmp_path / "model.safetensors").write_text(text)
    with pytest.raises(CorruptFile, match=r"model\.safetensors is a Git LFS pointer"):
        read_folder(tmp_path)


def test_a_folder_without_safetensors_is_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"x": "model-00009-of-00002.safetensors"},
        {"x": "../model-00001-of-00002.safetensors"},
        {"x": "/etc/passwd.safetensors"},
        {"x": "sub\\model.safetensors"},
        {"x": "C:model.safetensors"},
        {"x": "m\0.safetensors"},
        {"x": "config.json"},
        {"x": "a" * 300 + ".safetensors"},
        {"x": "\ud800.safetensors"},
        {"x": 3},
    ],
)
def test_an_index_with_an_invalid_file_name_is_corrupt(tmp_path: Path, change: dict[str, Any]) -> None:
    index(tmp_path, shards(tmp_path) | change)
    with pytest.raises(CorruptFile):
        read_folder(tmp_path)


def test_a_tensor_that_the_index_does_not_list_is_read(tmp_path: Path) -> None:
    """As in transformers (vllm-project/vllm#54230)."""
    save_file({"x": torch.zeros(2), "extra": torch.zeros(1)}, tmp_path / "model-00001-of-00001.safetensors")
    index(tmp_path, {"x": "model-00001-of-00001.safetensors"})
    assert set(read_folder(tmp_path)) == {"x", "extra"}


def test_a_tensor_that_only_the_index_lists_is_not_an_error(tmp_path: Path) -> None:
    index(tmp_path, shards(tmp_path) | {"mtp.x": "model-00002-of-00002.safetensors"})
    assert set(read_folder(tmp_path)) == {"x", "y"}


@pytest.mark.parametrize("text", ["[]", '{"weight_map": {}}', '{"weight_map": []}', "{", "[" * 100_000])
def test_an_index_without_a_tensor_table_is_corrupt(tmp_path: Path, text: str) -> None:
    (tmp_path / INDEX_FILE).write_text(text)
    with pytest.raises(CorruptFile):
        read_folder(tmp_path)
