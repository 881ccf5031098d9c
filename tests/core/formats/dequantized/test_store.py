"""Weights of every layout are read as the formulas of their formats say, whole, by rows and in pieces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from core.model.fingerprint import FingerprintedStore
from tests.core.formats.dequantized.stored import KINDS, StoredModel, store_of


def rounded(value: np.ndarray, dtype: torch.dtype) -> Tensor:
    """Round a product that float32 computes first, since its rounding is part of the definition."""
    return torch.from_numpy(value.astype(np.float32)).to(dtype)


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest) -> StoredModel:
    return KINDS[request.param]()


def test_weights_follow_the_formula_of_the_format(model: StoredModel, tmp_path: Path) -> None:
    store = store_of(model.save(tmp_path))
    for name, expected in model.expected.items():
        found = store.get(name)
        exact = rounded(expected, found.dtype)
        assert found.shape == exact.shape == store.info(name).shape
        assert found.dtype in (torch.bfloat16, torch.float16)
        # two factors in float32 may round differently than their product: at most by one unit of the last place
        apart = (found.double() - torch.from_numpy(expected)).abs()
        half_unit = torch.finfo(found.dtype).eps / 2 * 1.001
        assert bool((apart <= half_unit * torch.from_numpy(expected).abs() + 1e-9).all())


def test_no_tensor_of_the_source_format_is_left(model: StoredModel, tmp_path: Path) -> None:
    store = store_of(model.save(tmp_path))
    plain = {name for name in model.tensors if name.startswith("norm") or name.endswith("_bias")}
    assert set(store.table) == set(model.expected) | plain
    for name in plain:
        assert torch.equal(store.get(name), model.tensors[name])


def test_rows_and_pieces_equal_the_whole(model: StoredModel, tmp_path: Path) -> None:
    store = store_of(model.save(tmp_path))
    for name in model.expected:
        whole = store.get(name)
        index = torch.tensor([len(whole) - 1, 0, 1])
        assert torch.equal(store.rows(name, index), whole[index])
        assert b"".join(store.chunks(name)) == whole.view(torch.uint8).numpy().tobytes()
        assert store.info(name).nbytes == whole.nbytes


def test_slices_do_not_change_the_weights(model: StoredModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of(model.save(tmp_path))
    whole = {name: store.get(name) for name in model.expected}
    monkeypatch.setattr("core.formats.dequantized.store._SLICE", 100)
    for name, weight in whole.items():
        assert torch.equal(store.get(name), weight)
        pieces = list(store.chunks(name))
        assert len(pieces) > 1
        assert b"".join(pieces) == weight.view(torch.uint8).numpy().tobytes()


def test_a_fingerprinted_store_reads_through(model: StoredModel, tmp_path: Path) -> None:
    store = FingerprintedStore(store_of(model.save(tmp_path)))
    for name, expected in model.expected.items():
        assert store.get(name).shape == expected.shape
        b"".join(store.chunks(name))
        assert store.largest[name] == float(store.get(name).abs().max())
