"""From figures to colors: where a value stands between the ends, and when the scale is logarithmic."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.pages.layers.layer_grid import make_grid
from app.pages.layers.layer_sheet import make_sheet
from app.pages.layers.map.cells import MapCells
from app.pages.layers.map.colors import Scale, cell_colors, make_scale
from app.theme import Theme
from core.bitsmap import BitsMap
from core.model.tree import resolve_schemes
from core.schemes import LayerScheme
from core.sensitivity.table import SensitivityTable
from tests.app.pages.layers.experts import mixture


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([1.0, 2.0], Scale(1.0, 2.0)),
        ([1.0, 100.0], Scale(1.0, 100.0, logarithmic=True)),
        ([0.0, 1.0, 100.0], Scale(1.0, 100.0, logarithmic=True)),
        ([0.0, 3.0], Scale(0.0, 3.0)),
        ([math.nan, 2.0], Scale(2.0, 2.0)),
        ([math.nan], Scale()),
        ([], Scale()),
    ],
)
def test_a_wide_range_is_shown_by_its_logarithm(values: list[float], scale: Scale) -> None:
    assert make_scale(values) == scale


@given(st.lists(st.floats(0, 1e12), min_size=1))
def test_every_value_stands_between_the_ends_in_its_order(values: list[float]) -> None:
    scale = make_scale(values)
    places = [scale.place(value) for value in sorted(values)]
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in places)
    assert all(first <= second + 1e-9 for first, second in pairwise(places))


def test_the_scale_is_of_the_cells_that_are_shown(theme: Theme) -> None:
    tree = mixture(2, 8)
    names = tuple(linear.name for linear in tree.linears)
    table = SensitivityTable("fisher", names, (LayerScheme(2, 64),), ((1.0,),) * len(names))
    sheet = make_sheet(tree, resolve_schemes(tree, BitsMap()), "auto_round", {}, table)
    folded = MapCells(make_grid(tree), sheet)
    opened = MapCells(folded.grid.unfold("mlp.experts.*.up_proj"), sheet)
    for cells, high in ((folded, 8.0), (opened, 8.0)):
        colors, scale = cell_colors(theme, cells, "sensitivity", cells.values("sensitivity"))
        assert (scale.low, scale.high) == (1.0, high)
        assert colors[cells.grid.layer_at(0, 5)] == theme.cividis(1.0).rgba()
        assert colors[cells.grid.layer_at(0, 0)] == theme.cividis(0.0).rgba()
