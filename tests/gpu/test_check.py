"""Tests of the checks for graphics cards, run on the CPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from core.inference.backends import portable
from core.inference.devices import choose
from core.inference.machine import Device
from core.schemes import LayerScheme
from tests.gpu import check

CPU = choose("cpu")
SOME = (LayerScheme(4, 64, True), LayerScheme(2, 32, False))


def test_correct_backends_pass() -> None:
    found = {item.what: item for item in check.backends(CPU, SOME)}
    assert (found["portable"].right, found["portable"].figures[:6]) == (True, "2 of 2")


def test_a_backend_with_wrong_results_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(self: object, layer: object, bias: torch.Tensor, device: object, dtype: torch.dtype) -> nn.Module:
        return nn.Linear(check.INPUTS, check.OUTPUTS, dtype=dtype)

    monkeypatch.setattr(portable.PortableBackend, "build", build)
    found = {item.what: item for item in check.backends(CPU, SOME)}
    assert (found["portable"].right, "off by" in found["portable"].figures) == (False, True)


def test_equal_steps_of_grids_pass() -> None:
    (found,) = check.grid_steps(CPU, SOME)
    assert (found.right, found.figures) == (True, "2 schemes, compiled")


def test_steps_of_grids_with_other_results_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter(range(100))
    monkeypatch.setattr(check, "_stepped", lambda grid, place: [torch.tensor(next(numbers))])
    (found,) = check.grid_steps(CPU, SOME)
    assert (found.right, "W2 g32 asym" in found.figures) == (False, True)


def test_a_block_is_tuned_and_compared(tmp_path: Path) -> None:
    (found,) = check.tuned_block(CPU, tmp_path)
    assert found.right


def test_one_device_shares_nothing(tmp_path: Path) -> None:
    (found,) = check.shared_samples(CPU, tmp_path)
    assert (found.right, found.figures) == (True, "not checked: needs two CUDA cards")


def test_cards_with_the_losses_of_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = Device("cuda:0", "cuda", "card", 1, 1)
    losses = iter([(2.0, 1.0), (2.0, 1.05), (2.0, 1.06)])
    monkeypatch.setattr(check, "list_devices", lambda: (CPU, card, replace(card, id="cuda:1")))
    monkeypatch.setattr(check, "_tuned", lambda model, output, place: [])
    monkeypatch.setattr(check, "_first_losses", lambda events: next(losses))
    close, again = check.shared_samples(card, tmp_path)
    assert (close.right, again.right) == (True, False)


def test_without_a_card_the_status_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    assert (check.main([]), "nothing was checked" in capsys.readouterr().err) == (2, True)
