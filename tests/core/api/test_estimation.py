"""Predicted needs of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core import api

QUICK: dict[str, Any] = {"recipe": "quick", "iters": 2, "samples": 2, "seqlen": 32, "group_size": 32}


def test_estimating_with_a_given_speed(tiny: Path, place: Path) -> None:
    found = api.estimate(tiny, throughput=1e9, device="cpu", **QUICK)
    assert found.seconds is not None
    assert found.device.high == 0
    assert list(place.iterdir()) == []


def test_estimating_measures_the_speed_of_this_machine(tiny: Path, place: Path) -> None:
    assert api.estimate(tiny, device="cpu", **QUICK).seconds is not None
