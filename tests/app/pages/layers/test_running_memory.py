"""What it takes to run a model against what is free."""

from __future__ import annotations

import pytest
from pytestqt.qtbot import QtBot

from app.pages.layers.running_memory import running_memory
from app.shared import resource_needs
from app.shared.draft import Draft
from core.estimation.goals import ENGINE
from core.inference.machine import Device, Machine
from tests.core.paper_model import llama


@pytest.mark.parametrize(("free", "fits"), [(10e9, True), (1e6, False)])
def test_it_fits_or_it_does_not(qtbot: QtBot, monkeypatch: pytest.MonkeyPatch, free: float, fits: bool) -> None:
    monkeypatch.setattr(resource_needs, "_free_ram", lambda draft: free)
    found = running_memory(Draft(), llama(2), 100_000_000)
    assert found.fits is fits
    assert found.text.endswith(" free")


def test_a_card_has_memory_of_its_own(qtbot: QtBot) -> None:
    draft = Draft()
    draft.set_machine(Machine((Device("cuda:0", "cuda", "", 0, ENGINE),), {}, "cuda:0"))
    found = running_memory(draft, llama(2), 100_000_000)
    assert (found.fits, "800 MB free" in found.text) == (False, True)
