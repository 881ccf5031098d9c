"""Perplexity of a model on a text."""

from __future__ import annotations

from pathlib import Path

import pytest

from core import api
from core.api import evaluation
from core.errors import BadCalibration
from core.events import Log, Result
from core.inference import loader
from core.inference.loader import LoadedModel


def test_a_model_is_evaluated_against_itself(tiny: Path, place: Path) -> None:
    (place / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 40)
    events = list(api.evaluate(tiny, text="text.txt", seqlen=64, max_windows=4, against=tiny, device="cpu"))
    result = events[-1]
    assert isinstance(result, Result)
    assert result.values["perplexity"]["value"] == result.values["against"]["value"] > 1
    assert result.values["comparison"]["top1"] == 1.0
    assert result.values["comparison"]["kl_mean"] == pytest.approx(0, abs=1e-6)
    floor = result.values["noise_floor"]
    assert floor["dtype"] == "bfloat16"
    assert floor["kl_mean"] > 10 * result.values["comparison"]["kl_mean"]  # 16 bits are not exact, equal models are
    assert floor["windows"] == 4


def test_the_noise_floor_is_measured_on_windows_spread_over_the_text(
    tiny: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 40)
    monkeypatch.setattr(evaluation, "FLOOR_WINDOWS", 2)
    *_, result = api.evaluate(tiny, text="text.txt", seqlen=64, max_windows=5, against=tiny, device="cpu")
    assert isinstance(result, Result)
    assert (result.values["comparison"]["windows"], result.values["noise_floor"]["windows"]) == (5, 2)


def test_a_noise_floor_without_memory_is_left_out_with_a_warning(
    tiny: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> LoadedModel:
        if arguments[2] == "bfloat16":
            raise MemoryError
        return load_model(*arguments, **options)  # type: ignore[arg-type]

    load_model = loader.load_model
    monkeypatch.setattr(loader, "load_model", full)
    (place / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 40)
    events = list(api.evaluate(tiny, text="text.txt", seqlen=64, max_windows=2, against=tiny, device="cpu"))
    assert isinstance(events[-1], Result)
    assert events[-1].values["noise_floor"] is None
    assert [event.message for event in events if isinstance(event, Log) and event.level == "warning"]


def test_a_text_that_is_not_there_is_found_before_the_model_is_loaded(tiny: Path, place: Path) -> None:
    with pytest.raises(BadCalibration, match=r"none\.txt"):
        api.evaluate(tiny, text="none.txt")
