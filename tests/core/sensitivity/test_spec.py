"""What a measurement depends on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from core.errors import BadInput
from core.schemes import LayerScheme
from core.sensitivity.spec import DEFAULT, MEASURES, AnalysisSpec

SPEC = AnalysisSpec("demo", (LayerScheme(2), LayerScheme(4)))


def test_the_default_is_a_measure_that_is_offered() -> None:
    assert DEFAULT in [measure.name for measure in MEASURES]


@pytest.mark.parametrize(
    "change",
    [
        {"schemes": (LayerScheme(2),)},
        {"measure": "output"},
        {"samples": 17},
        {"seqlen": 64},
        {"seed": 1},
        {"model": "x"},
    ],
)
def test_whatever_changes_the_result_changes_the_key(change: dict[str, Any]) -> None:
    assert replace(SPEC, **change).key("files") != SPEC.key("files")


def test_other_files_change_the_key() -> None:
    assert SPEC.key("files") != SPEC.key("other files")


@pytest.mark.parametrize(
    "change", [{"measure": "guess"}, {"schemes": ()}, {"schemes": (LayerScheme(16),)}, {"samples": 0}, {"seqlen": 8}]
)
def test_what_cannot_be_measured_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        replace(SPEC, **change)
