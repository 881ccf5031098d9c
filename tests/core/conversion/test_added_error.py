"""Computation of the error that a conversion adds."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from core.conversion import added_error
from core.conversion.added_error import AddedError, Difference, between, of_layers, of_tensors
from core.formats.plain import PlainLinear
from core.formats.stored import by_rows
from core.model.weights import TensorStore
from core.schemes import LayerScheme
from tests.core.formats.tiny import LLAMA_CONFIG, round_to_nearest, save_source


def test_a_difference_equals_values_computed_by_hand() -> None:
    found = between(torch.tensor([3.0, 4.0, 0.0]), torch.tensor([3.0, 4.5, -0.5]))
    assert found.largest == 0.5
    assert found.squared == pytest.approx(0.5)
    assert found.relative_rms == pytest.approx(math.sqrt(0.5 / 25))


def test_signed_zeros_are_equal() -> None:
    assert between(torch.tensor([0.0]), torch.tensor([-0.0])).exact


@pytest.mark.parametrize("first", [(math.nan, 1.0), (1.0, math.nan)])
def test_a_nan_is_never_exact(first: tuple[float, float]) -> None:
    assert not between(torch.tensor(first), torch.tensor(first)).exact


def test_adding_keeps_a_nan() -> None:
    nan = Difference(math.nan, math.nan, 1.0)
    assert not (Difference(0.5) + nan).exact
    assert not (nan + Difference(0.5)).exact


def test_the_relative_error_of_all_zeros_is_infinite_or_0() -> None:
    assert between(torch.zeros(3), torch.ones(3)).relative_rms == math.inf
    assert between(torch.zeros(3), torch.zeros(3)).relative_rms == 0


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        between(torch.zeros(3), torch.zeros(4))


def test_the_piece_size_does_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = torch.randn(64, 96), torch.randn(64, 96)
    whole = between(one, other)
    monkeypatch.setattr(added_error, "_PIECE", 100)
    cut = between(one, other)
    assert cut.largest == whole.largest
    assert cut.squared == pytest.approx(whole.squared)


def test_by_rows_gives_the_whole_layer() -> None:
    layer = round_to_nearest("x", torch.randn(64, 96), LayerScheme(4, 32, sym=False))
    pieces = list(by_rows(layer, 5))
    assert torch.equal(torch.cat(pieces), layer.dequantize())
    assert len(pieces) == 13


def test_layers_of_different_classes_are_split_equally(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(added_error, "_PIECE", 200)
    layer = round_to_nearest("x", torch.randn(64, 96), LayerScheme(4, 32))
    assert of_layers(layer, PlainLinear("x", layer.dequantize())).exact


def test_layers_of_two_grids_are_compared() -> None:
    weight = torch.randn(64, 96)
    layer = round_to_nearest("x", weight, LayerScheme(4, 32))
    found = of_layers(PlainLinear("x", weight), layer)
    assert found.largest == pytest.approx(float((layer.dequantize() - weight).abs().max()))


def test_tensors_of_two_stores_are_compared(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(40, 8), "b": torch.randn(7), "c": torch.zeros(0, 4), "d": torch.randn(2, 3, 4)}
    half = {name: tensor.to(torch.float16) for name, tensor in tensors.items()}
    one = TensorStore(save_source(tmp_path / "one", tensors, LLAMA_CONFIG))
    other = TensorStore(save_source(tmp_path / "other", half, LLAMA_CONFIG))
    for name, tensor in tensors.items():
        assert of_tensors(name, one, one).exact
        expected = (half[name].float() - tensor).abs().max().item() if tensor.numel() else 0.0
        assert of_tensors(name, one, other).largest == pytest.approx(expected)


def test_the_report_has_the_worst_tensor() -> None:
    error = AddedError()
    error.add("same", Difference(0.0, 0.0, 5.0))
    error.add("small", Difference(0.5, 1.0, 100.0))
    error.add("large", Difference(0.25, 4.0, 100.0))
    error.add("fair", Difference(0.1, 1.0, 50.0))
    assert error.to_json() == {
        "largest_difference": 0.5,
        "relative_rms": pytest.approx(math.sqrt(6 / 255)),
        "changed_tensors": 3,
        "worst_tensor": {"name": "large", "relative_rms": pytest.approx(0.2)},
    }


def test_equal_tensors_have_no_worst() -> None:
    error = AddedError()
    error.add("same", Difference(0.0, 0.0, 5.0))
    assert error.to_json()["worst_tensor"]["name"] == ""
    assert error.total.exact
