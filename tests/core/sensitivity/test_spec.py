"""The settings of a sensitivity measurement and its cache key."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from core.errors import BadInput
from core.schemes import LayerScheme
from core.sensitivity.spec import DEFAULT, MEASURES, AnalysisSpec

SPEC = AnalysisSpec("demo", (LayerScheme(2), LayerScheme(4)))


def test_the_default_measure_is_in_the_list() -> None:
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
def test_every_setting_changes_the_cache_key(change: dict[str, Any]) -> None:
    assert replace(SPEC, **change).key("files") != SPEC.key("files")


def test_changed_files_change_the_cache_key() -> None:
    assert SPEC.key("files") != SPEC.key("other files")


@pytest.mark.parametrize(
    "change", [{"measure": "guess"}, {"schemes": ()}, {"schemes": (LayerScheme(16),)}, {"samples": 0}, {"seqlen": 8}]
)
def test_settings_out_of_range_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        replace(SPEC, **change)
