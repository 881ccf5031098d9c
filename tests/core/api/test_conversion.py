"""Conversion between formats."""

from __future__ import annotations

from pathlib import Path

import pytest

from core import api
from core.codec import decode, encode
from core.conversion.survey import ConversionSurvey
from core.errors import BadInput, ModelNotFound, OutputProblem
from core.events import Done

QUICK = {"recipe": "quick", "iters": 2, "samples": 2, "seqlen": 32, "group_size": 32}


def test_converting_checks_before_it_starts(tiny: Path, place: Path) -> None:
    with pytest.raises(BadInput, match="Unknown output format"):
        api.convert(tiny, "out", "ggml")
    with pytest.raises(OutputProblem):
        api.convert(tiny, place.parent, "auto_gptq")
    with pytest.raises(ModelNotFound):
        api.convert("./nothing", "out", "auto_gptq")
    with pytest.raises(BadInput, match="not quantized"):
        list(api.convert(tiny, "out", "auto_gptq"))
    assert list(place.iterdir()) == []


def test_what_a_model_can_become(tiny: Path, place: Path) -> None:
    found = api.conversions(tiny)
    verdicts = {option.format: option.verdict for option in found.options}
    assert (verdicts["auto_round"], verdicts["f16"], verdicts["f32"]) == ("no", "inexact", "exact")
    assert decode(ConversionSurvey, encode(found)) == found


def test_a_model_becomes_wider_numbers(tiny: Path, place: Path) -> None:
    done = list(api.convert(tiny, "out", "f32"))[-1]
    assert isinstance(done, Done)
    assert done.report["exact"] is True
    assert (place / "out" / "tokenizer.json").is_file()


@pytest.mark.slow
def test_a_quantized_model_is_converted(tiny: Path, place: Path) -> None:
    list(api.quantize(tiny, "first", **{**QUICK, "recipe": "rtn", "iters": None}))  # type: ignore[arg-type]
    done = list(api.convert("first", "second", "auto_gptq"))[-1]
    assert isinstance(done, Done)
    assert (place / "second" / "tokenizer.json").is_file()
