"""FingerprintedStore detects tensors that change between reads, and values that are not finite or too large."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from core.errors import CorruptFile
from core.model.fingerprint import FingerprintedStore
from core.model.weights import TensorStore


def nothing() -> None:
    """Do not stop."""


def save(folder: Path, **changes: Tensor) -> Path:
    folder.mkdir(exist_ok=True)
    tensors = {"a": torch.arange(12.0).reshape(3, 4), "b": torch.ones(5).bfloat16(), "ids": torch.arange(3), **changes}
    save_file(tensors, folder / "model.safetensors")
    return folder


def scan(store: FingerprintedStore) -> None:
    store.scan(store.table, nothing)


def read_in_pieces(store: FingerprintedStore, name: str) -> bytes:
    return b"".join(store.chunks(name))


def test_reads_equal_those_of_a_plain_store(tmp_path: Path) -> None:
    store = FingerprintedStore(TensorStore(save(tmp_path)))
    assert torch.equal(store.get("a"), torch.arange(12.0).reshape(3, 4))
    assert read_in_pieces(store, "a") == torch.arange(12.0).numpy().tobytes()
    assert torch.equal(store.rows("a", torch.tensor([2])), torch.tensor([[8.0, 9.0, 10.0, 11.0]]))
    scan(store)
    assert store.nbytes_read == 12 * 4 + 5 * 2 + 3 * 8
    assert store.largest["a"] == 11


@pytest.mark.parametrize("again", [FingerprintedStore.get, read_in_pieces])
def test_reading_a_tensor_that_changed_in_place_raises(
    tmp_path: Path, again: Callable[[FingerprintedStore, str], object]
) -> None:
    store = FingerprintedStore(TensorStore(save(tmp_path)))
    scan(store)
    again(store, "a")
    save(tmp_path, a=torch.arange(12.0).reshape(3, 4) + 1)
    with pytest.raises(CorruptFile, match="changed while they were in use: a differs"):
        again(store, "a")
    again(store, "b")


def test_a_truncated_file_counts_as_changed(tmp_path: Path) -> None:
    store = FingerprintedStore(TensorStore(save(tmp_path)))
    scan(store)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(CorruptFile, match="changed while they were in use"):
        store.get("a")


def test_confirm_compares_tensors_of_which_rows_were_read(tmp_path: Path) -> None:
    store = FingerprintedStore(TensorStore(save(tmp_path)))
    scan(store)
    store.confirm(nothing)
    save(tmp_path, a=torch.arange(12.0).reshape(3, 4) + 1)
    store.confirm(nothing)
    store.rows("a", torch.tensor([0]))
    with pytest.raises(CorruptFile, match="a differs from its content"):
        store.confirm(nothing)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_values_that_are_not_finite_are_counted_by_tensor(tmp_path: Path, value: float, dtype: torch.dtype) -> None:
    broken = torch.ones(50, dtype=dtype)
    broken[3] = broken[44] = value
    with pytest.raises(CorruptFile, match="c contains 2 values that are not finite"):
        FingerprintedStore(TensorStore(save(tmp_path, c=broken))).get("c")
    with pytest.raises(CorruptFile, match="c contains 2 values that are not finite"):
        scan(FingerprintedStore(TensorStore(tmp_path)))


def test_a_single_value_may_be_infinite_since_it_can_be_a_limit(tmp_path: Path) -> None:
    store = FingerprintedStore(TensorStore(save(tmp_path, c=torch.tensor(torch.inf))))
    scan(store)
    assert store.get("c").isinf()


def test_a_value_beyond_the_range_of_32_bit_floats_is_rejected(tmp_path: Path) -> None:
    store = FingerprintedStore(TensorStore(save(tmp_path, c=torch.tensor([1e300], dtype=torch.float64))))
    with pytest.raises(CorruptFile, match=r"c contains the value 1e\+300, which exceeds"):
        scan(store)


def test_the_fingerprint_depends_on_contents_and_shapes_only(tmp_path: Path) -> None:
    def found(folder: Path) -> str:
        store = FingerprintedStore(TensorStore(folder))
        scan(store)
        return store.fingerprint()

    one = FingerprintedStore(TensorStore(save(tmp_path / "one")))
    one.get("b")
    scan(one)
    assert one.fingerprint() == found(save(tmp_path / "two"))
    assert one.fingerprint() != found(save(tmp_path / "three", b=torch.zeros(5).bfloat16()))
    assert one.fingerprint() != found(save(tmp_path / "four", a=torch.arange(12.0).reshape(4, 3)))
