"""The program for machines with a card, on the CPU: that it finds what is right and what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from core.inference.backends import portable
from core.inference.devices import choose
from core.schemes import LayerScheme
from tests.gpu import check

CPU = choose("cpu")
SOME = (LayerScheme(4, 64, True), LayerScheme(2, 32, False))


def test_backends_that_compute_the_product_are_right() -> None:
    found = {item.what: item for item in check.backends(CPU, SOME)}
    assert (found["portable"].right, found["portable"].figures[:6]) == (True, "2 of 2")


def test_a_backend_that_computes_something_else_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(self: object, layer: object, bias: torch.Tensor, device: object, dtype: torch.dtype) -> nn.Module:
        return nn.Linear(check.INPUTS, check.OUTPUTS, dtype=dtype)

    monkeypatch.setattr(portable.PortableBackend, "build", build)
    found = {item.what: item for item in check.backends(CPU, SOME)}
    assert (found["portable"].right, "off by" in found["portable"].figures) == (False, True)


def test_a_block_is_tuned_and_compared(tmp_path: Path) -> None:
    (found,) = check.tuned_block(CPU, tmp_path)
    assert found.right


def test_without_a_card_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    assert (check.main([]), "nothing was checked" in capsys.readouterr().err) == (2, True)
