"""Loss increase by position: the same as the table says by name, for whichever schemes layers have."""

from __future__ import annotations

import math

import pytest

from app.pages.layers.budget.loss_increase import LayerSensitivity
from core.schemes import LayerScheme
from core.sensitivity.table import SensitivityTable

W2, W4, W4_ROW, W8 = LayerScheme(2, 64), LayerScheme(4, 64), LayerScheme(4, -1), LayerScheme(8, 64)
TABLE = SensitivityTable("fisher", ("a", "b"), (W4, W4_ROW, W2), ((4.0, 5.0, 9.0), (1.0, 2.0, 3.0)))
LOSS_INCREASE = LayerSensitivity(TABLE, ["b", "unknown", "a"])


@pytest.mark.parametrize("scheme", [W2, W4, W4_ROW, LayerScheme(4, 32, False), W8, LayerScheme(16)])
def test_it_says_what_the_table_says(scheme: LayerScheme) -> None:
    found = LOSS_INCREASE.now([0, 0, 0], [scheme])
    wanted = [TABLE.of(name, scheme) for name in ("b", "unknown", "a")]
    assert [None if math.isnan(value) else value for value in found] == wanted


def test_layers_are_as_sensitive_as_at_the_fewest_bits() -> None:
    assert LOSS_INCREASE.sensitivity == pytest.approx([3.0, math.nan, 9.0], nan_ok=True)


def test_all_candidates_with_the_fewest_bits_first() -> None:
    assert LOSS_INCREASE.at(2) == [(W2, 9.0), (W4, 4.0), (W4_ROW, 5.0)]
    assert LOSS_INCREASE.at(1) == []
