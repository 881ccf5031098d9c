"""What folded cells say: the bits of most, sums, the worst mark, and one sentence for a screen reader."""

from __future__ import annotations

import math

import pytest

from app.pages.layers.layer_grid import LayerGrid, make_grid
from app.pages.layers.layer_sheet import make_sheet
from app.pages.layers.map.cells import MapCells
from core.bitsmap import BitsMap, Rule
from core.formats.engines import EngineIssue
from core.model.tree import resolve_schemes
from core.schemes import LayerScheme
from core.sensitivity.table import SensitivityTable
from tests.app.pages.layers.experts import mixture

TREE = mixture(2, 8)
GRID = make_grid(TREE)
MAP = BitsMap(LayerScheme(4, 64), (Rule("*.0.mlp.experts.[12].gate_proj", bits=8), Rule("*.1.mlp.*.up_proj", bits=3)))
MIXED, ALIKE = GRID.layer_at(0, 5), GRID.layer_at(1, 6)


def cells_of(
    bits_map: BitsMap = MAP,
    grid: LayerGrid = GRID,
    loss_increase: SensitivityTable | None = None,
    marks: dict[int, EngineIssue] | None = None,
) -> MapCells:
    return MapCells(
        grid, make_sheet(TREE, resolve_schemes(TREE, bits_map), "auto_round", {0: 0.5}, loss_increase, marks)
    )


def table() -> SensitivityTable:
    """Loss increase 1 for each layer at 2 bits, a tenth at 4."""
    names = tuple(linear.name for linear in TREE.linears)
    return SensitivityTable("fisher", names, (LayerScheme(2, 64), LayerScheme(4, 64)), ((1.0, 0.1),) * len(names))


def text(cells: MapCells, layer: int, coloring: str) -> str:
    return cells.text(layer, coloring, cells.values(coloring)[layer])


def test_a_cell_has_the_bits_of_most_of_its_layers() -> None:
    cells = cells_of()
    assert (cells.bits(MIXED), cells.bits(ALIKE)) == (4, 3)
    assert cells.mixes == {MIXED: [(4, 6), (8, 2)]}


@pytest.mark.parametrize(("layer", "said"), [(MIXED, "4–8"), (ALIKE, "3"), (GRID.layer_at(0, 0), "4")])
def test_bits_are_said_as_one_number_or_as_the_ends(layer: int, said: str) -> None:
    assert text(cells_of(), layer, "bits") == said


def test_sizes_and_sensitivities_of_a_cell_are_sums() -> None:
    cells = cells_of(loss_increase=table())
    sizes = cells.sheet.values("size")
    assert cells.values("size")[MIXED] == sum(sizes[layer] for layer in GRID.layers_at(0, 5))
    assert cells.values("sensitivity")[MIXED] == pytest.approx(8.0)
    assert text(cells, MIXED, "sensitivity") == "8"


def test_a_cell_of_which_nothing_is_known_has_no_number() -> None:
    assert math.isnan(cells_of().values("sensitivity")[MIXED])
    assert text(cells_of(), MIXED, "sensitivity") == "–"


def test_the_loss_is_the_blocks_and_no_sum() -> None:
    assert cells_of().values("loss")[MIXED] == 0.5


def test_unfolded_cells_are_their_layers() -> None:
    cells = cells_of(grid=GRID.unfold("mlp.experts.*.gate_proj"))
    assert MIXED not in cells.folded
    assert cells.mixes == {}
    assert text(cells, MIXED, "bits") == "4"


def test_a_tooltip_counts_what_differs() -> None:
    said = cells_of(loss_increase=table()).describe(MIXED)
    for words in (
        "block 0, mlp.experts.*.gate_proj: 8 experts",
        "4 bits (6); 8 bits (2)",
        "64 × 64",
        "8 with all at 2",
    ):
        assert words in said


def test_a_screen_reader_hears_the_experts_together() -> None:
    said = cells_of().spoken(MIXED)
    assert said == "block 0, mlp.experts.*.gate_proj, 8 experts collapsed, 4 bits (6); 8 bits (2)"


def test_a_cell_has_the_worst_mark_of_its_layers() -> None:
    layers = GRID.layers_at(0, 5)
    marks = {
        layers[1]: EngineIssue("a", "slow", "no kernel", None),
        layers[4]: EngineIssue("b", "cannot", "3 bits", None),
    }
    cells = cells_of(marks=marks)
    assert {layer: mark.severity for layer, mark in cells.marks.items()} == {MIXED: "cannot"}
    assert "Slow: no kernel (1); Cannot be loaded: 3 bits (1)" in cells.describe(MIXED)
    assert "Cannot be loaded: 3 bits" in cells.spoken(MIXED)


def test_a_cell_is_marked_where_any_of_its_layers_fell_back() -> None:
    odd = BitsMap(LayerScheme(4, 64), (Rule("*.1.mlp.experts.7.down_proj", group_size=128),))
    assert cells_of(odd).fallen == {GRID.layer_at(1, 7)}


def test_a_cell_is_lit_where_the_filter_lets_one_of_its_layers_through() -> None:
    assert cells_of().lit({GRID.layers_at(1, 5)[3], 0}) == {GRID.layer_at(1, 5), GRID.layer_at(*GRID.places[0])}
