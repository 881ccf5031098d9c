"""Reading of single tensors by byte range."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from core.errors import CorruptFile, ModelNotFound
from core.model.weights import TensorStore, evenly


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "a": torch.randn(7, 5, generator=generator).bfloat16(),
        "b": torch.randn(40, 3, generator=generator),
        "c": torch.arange(6, dtype=torch.int64),
        "d": torch.randn(4, 4, generator=generator).half(),
    }


@pytest.fixture
def store(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> TensorStore:
    save_file(tensors, tmp_path / "model.safetensors")
    return TensorStore(tmp_path)


@pytest.mark.parametrize("name", "abcd")
def test_get_returns_the_tensor_in_its_dtype(store: TensorStore, tensors: dict[str, torch.Tensor], name: str) -> None:
    assert torch.equal(store.get(name), tensors[name])
    assert store.get(name).dtype == tensors[name].dtype


def test_rows_returns_the_selected_rows(store: TensorStore, tensors: dict[str, torch.Tensor]) -> None:
    index = torch.tensor([6, 0, 3])
    assert torch.equal(store.rows("a", index), tensors["a"][index])


def test_chunks_are_the_bytes_of_the_tensor(store: TensorStore, tensors: dict[str, torch.Tensor]) -> None:
    assert b"".join(store.chunks("b")) == tensors["b"].numpy().tobytes()


def test_an_unknown_tensor_is_reported(store: TensorStore) -> None:
    with pytest.raises(CorruptFile, match="no tensor x"):
        store.get("x")


def test_a_truncated_file_is_reported(store: TensorStore) -> None:
    path = store.folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    last = max(store.table.values(), key=lambda info: info.end).name
    with pytest.raises(CorruptFile, match=last):
        store.get(last)


@pytest.mark.parametrize(
    "read",
    [
        lambda store: store.get("b"),
        lambda store: store.rows("b", torch.tensor([1])),
        lambda store: list(store.chunks("b")),
    ],
    ids=["whole", "rows", "pieces"],
)
def test_a_removed_file_is_reported(store: TensorStore, read: Callable[[TensorStore], object]) -> None:
    (store.folder / "model.safetensors").unlink()
    with pytest.raises(ModelNotFound, match="can no longer be read"):
        read(store)


@pytest.mark.parametrize("pieces", [[b"abcdefg"], [b"a", b"", b"bcd", b"efg"], [b"abc", b"defg"], []])
def test_evenly_splits_any_stream_into_equal_pieces(pieces: list[bytes]) -> None:
    found = list(evenly(iter(pieces), 3))
    assert b"".join(found) == b"".join(pieces)
    assert [len(piece) for piece in found] == ([3, 3, 1] if pieces else [])
