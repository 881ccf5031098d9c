"""Statistics of answers: final, partial, and during generation."""

from __future__ import annotations

import pytest

from app.pages.chat.live_statistics import LiveStatistics


def test_the_meter_measures_thinking() -> None:
    meter = LiveStatistics(began=100.0)
    meter.piece("hm", 101.0, thinking=True)
    meter.piece("hm", 103.0, thinking=True)
    meter.piece("So", 104.0)
    assert meter.figures.thinking_seconds == pytest.approx(2.0)


def test_without_thinking_the_meter_measures_none() -> None:
    meter = LiveStatistics(began=100.0)
    meter.piece("So", 104.0)
    assert meter.figures.thinking_seconds == 0.0
