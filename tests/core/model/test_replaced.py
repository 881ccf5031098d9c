"""A store with replaced tensors reads those in every way, and all others from the store behind it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from core.model.replaced import ReplacedStore
from core.model.weights import TensorStore


@pytest.fixture
def store(tmp_path: Path) -> TensorStore:
    save_file({"a": torch.zeros(3, 4), "b": torch.ones(5).bfloat16()}, tmp_path / "model.safetensors")
    return TensorStore(tmp_path)


def test_a_replaced_tensor_is_read_in_every_way(store: TensorStore) -> None:
    value = torch.arange(12.0).view(3, 4)
    found = ReplacedStore(store, {"a": value})
    assert torch.equal(found.get("a"), value)
    assert torch.equal(found.rows("a", torch.tensor([2, 0])), value[[2, 0]])
    assert b"".join(found.chunks("a")) == value.numpy().tobytes()
    assert found.blocks("a", torch.tensor([0])) is None
    assert torch.equal(found.get("b"), store.get("b"))
    assert b"".join(found.chunks("b")) == b"".join(store.chunks("b"))
    assert found.table == store.table


@pytest.mark.parametrize("value", [torch.zeros(3, 4).half(), torch.zeros(4, 3)])
def test_another_dtype_or_shape_is_refused(store: TensorStore, value: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="unlike the tensor that it replaces"):
        ReplacedStore(store, {"a": value})
