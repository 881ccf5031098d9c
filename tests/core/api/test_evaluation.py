"""Perplexity of a model on a text."""

from __future__ import annotations

from pathlib import Path

import pytest

from core import api
from core.errors import BadCalibration
from core.events import Result


def test_a_model_is_evaluated_against_itself(tiny: Path, place: Path) -> None:
    (place / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 40)
    events = list(api.evaluate(tiny, text="text.txt", seqlen=64, max_windows=4, against=tiny, device="cpu"))
    result = events[-1]
    assert isinstance(result, Result)
    assert result.values["perplexity"]["value"] == result.values["against"]["value"] > 1
    assert result.values["comparison"]["top1"] == 1.0
    assert result.values["comparison"]["kl_mean"] == pytest.approx(0, abs=1e-6)


def test_a_text_that_is_not_there_is_found_before_the_model_is_loaded(tiny: Path, place: Path) -> None:
    with pytest.raises(BadCalibration, match=r"none\.txt"):
        api.evaluate(tiny, text="none.txt")
