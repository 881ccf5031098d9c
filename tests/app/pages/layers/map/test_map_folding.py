"""Folded experts on the painted map: what opens them, what a press on their headings selects, how they look."""

from __future__ import annotations

import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QColor
from pytestqt.qtbot import QtBot

from app.pages.layers.layer_grid import OUTER_ROW, LayerGrid, make_grid
from app.pages.layers.layer_sheet import LayerSheet, make_sheet
from app.pages.layers.map.bits_map import BitsMapView
from app.pages.layers.page import LayersPage
from app.pages.layers.selection import Selection
from app.theme import Theme
from core.bitsmap import BitsMap, Rule
from core.formats.engines import EngineIssue
from core.model.tree import resolve_schemes
from core.schemes import LayerScheme
from tests.app.pages.layers.experts import mixture
from tests.app.pages.layers.map.painted_map import centre, picture
from tests.app.pages.layers.parts import model

LEFT, CTRL = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.ControlModifier
TREE = mixture(6, 16)
GRID = make_grid(TREE)
GATE = "mlp.experts.*.gate_proj"
MAP = BitsMap(LayerScheme(4, 64), (Rule("/layers\\.2\\.mlp\\.experts\\.1?[0-3]\\.gate/", bits=8),))


def sheet_of(marks: dict[int, EngineIssue] | None = None) -> LayerSheet:
    return make_sheet(TREE, resolve_schemes(TREE, MAP), "auto_round", {}, None, marks)


@pytest.fixture
def view(qtbot: QtBot, theme: Theme, selection: Selection) -> BitsMapView:
    made = BitsMapView(theme, selection)
    qtbot.addWidget(made)
    made.resize(640, 400)
    made.show_layers(GRID, sheet_of())
    made.show()
    return made


def heading(view: BitsMapView, grid: LayerGrid = GRID) -> QPoint:
    """A point in the heading of the first experts, beside its box."""
    assert view.pixels is not None
    return view.pixels.heading(grid.bands[0], view.offset, view.viewport().size()).center() + QPoint(14, 0)


def box(view: BitsMapView, grid: LayerGrid = GRID) -> QPoint:
    assert view.pixels is not None
    return view.pixels.box(view.pixels.heading(grid.bands[0], view.offset, view.viewport().size())).center()


def colors_in(view: BitsMapView, row: int, column: int) -> set[str]:
    """All colors of a cell."""
    assert view.pixels is not None
    rect, image = view.pixels.rect(row, column).translated(-view.offset), picture(view)
    return {
        image.pixelColor(x, y).name()
        for x in range(rect.left(), rect.right() + 1)
        for y in range(rect.top(), rect.bottom() + 1)
    }


# --- Opening ------------------------------------------------------------------------------------------------


def test_a_double_click_on_a_cell_asks_for_its_experts(qtbot: QtBot, view: BitsMapView) -> None:
    with qtbot.waitSignal(view.fold_wanted) as wanted:
        qtbot.mouseDClick(view.viewport(), LEFT, pos=centre(view, 1, 5))
    assert wanted.args == [GATE]


def test_the_box_on_the_heading_does_and_selects_nothing(qtbot: QtBot, view: BitsMapView, selection: Selection) -> None:
    with qtbot.waitSignal(view.fold_wanted) as wanted:
        qtbot.mouseClick(view.viewport(), LEFT, pos=box(view))
    assert wanted.args == [GATE]
    assert selection.layers == frozenset()


@pytest.mark.parametrize("key", [Qt.Key.Key_Return, Qt.Key.Key_Enter])
def test_enter_does(qtbot: QtBot, view: BitsMapView, key: Qt.Key) -> None:
    qtbot.mouseClick(view.viewport(), LEFT, pos=centre(view, 1, 5))
    with qtbot.waitSignal(view.fold_wanted) as wanted:
        qtbot.keyClick(view, key)
    assert wanted.args == [GATE]


@pytest.mark.parametrize("column", [0, 4])
def test_what_is_no_expert_does_not_open(qtbot: QtBot, view: BitsMapView, column: int) -> None:
    with qtbot.assertNotEmitted(view.fold_wanted):
        qtbot.mouseDClick(view.viewport(), LEFT, pos=centre(view, 1, column))
        qtbot.keyClick(view, Qt.Key.Key_Return)


def test_the_head_does_not_open(qtbot: QtBot, view: BitsMapView) -> None:
    with qtbot.assertNotEmitted(view.fold_wanted):
        qtbot.mouseDClick(view.viewport(), LEFT, pos=centre(view, OUTER_ROW, 1))


def test_unfolding_keeps_zoom_selection_and_filter_and_shows_the_current_cell(
    view: BitsMapView, selection: Selection
) -> None:
    layer = GRID.layers_at(3, 6)[9]
    selection.select([layer])
    selection.set_current(layer)
    view.set_matches(frozenset({layer}))
    view.set_zoom(2.0)
    opened = GRID.unfold("mlp.experts.*.up_proj")
    view.show_layers(opened, sheet_of())
    assert view.zoom == 2.0
    assert selection.layers == {layer}
    assert view.viewport().rect().contains(centre(view, *opened.places[layer]))


def test_unfolding_shows_as_many_experts_as_fit(view: BitsMapView) -> None:
    view.resize(260, 400)
    opened = GRID.unfold("mlp.experts.*.down_proj")
    view.show_layers(opened, sheet_of())
    first = next(band for band in opened.bands if not band.folded).columns[0]
    assert view.pixels is not None
    shown = view.pixels.visible(view.offset, view.viewport().size())[1]
    assert first in shown[:2]
    assert view.viewport().rect().contains(centre(view, 3, first))
    assert len(shown) >= 4


def test_the_page_opens_and_folds(qtbot: QtBot, empty: LayersPage) -> None:
    empty.context.draft.choose(model=model(TREE))
    drawn = empty.body.map
    qtbot.mouseDClick(drawn.viewport(), LEFT, pos=centre(drawn, 1, 5))
    assert drawn.pixels is not None
    assert drawn.pixels.columns == 8 - 1 + 16
    qtbot.mouseDClick(drawn.viewport(), LEFT, pos=centre(drawn, 1, 5))
    assert drawn.pixels.columns == 8


# --- Selecting ----------------------------------------------------------------------------------------------


def test_a_click_selects_all_experts_of_the_cell(qtbot: QtBot, view: BitsMapView, selection: Selection) -> None:
    qtbot.mouseClick(view.viewport(), LEFT, pos=centre(view, 1, 5))
    qtbot.mouseClick(view.viewport(), LEFT, CTRL, centre(view, 2, 0))
    assert selection.layers == {*GRID.layers_at(1, 5), GRID.layer_at(2, 0)}


def test_a_drag_takes_folded_cells_with_it(qtbot: QtBot, view: BitsMapView, selection: Selection) -> None:
    qtbot.mousePress(view.viewport(), LEFT, pos=centre(view, 1, 4))
    qtbot.mouseMove(view.viewport(), centre(view, 2, 6))
    qtbot.mouseRelease(view.viewport(), LEFT, pos=centre(view, 2, 6))
    assert selection.layers == set(GRID.within((1, 4), (2, 6)))


@pytest.mark.parametrize("opened", [False, True])
def test_the_heading_selects_all_its_experts(
    qtbot: QtBot, view: BitsMapView, selection: Selection, opened: bool
) -> None:
    grid = GRID.unfold(GATE) if opened else GRID
    view.show_layers(grid, sheet_of())
    qtbot.mouseClick(view.viewport(), LEFT, pos=heading(view, grid))
    assert selection.layers == set(GRID.column(5))


def test_a_title_of_an_unfolded_column_selects_that_expert(
    qtbot: QtBot, view: BitsMapView, selection: Selection
) -> None:
    grid = GRID.unfold(GATE)
    view.show_layers(grid, sheet_of())
    assert view.pixels is not None
    qtbot.mouseClick(view.viewport(), LEFT, pos=QPoint(centre(view, 0, 7).x(), view.pixels.top - 4))
    assert selection.layers == set(grid.column(7))
    assert len(selection.layers) == 6


def test_a_number_selects_the_whole_block(qtbot: QtBot, view: BitsMapView, selection: Selection) -> None:
    qtbot.mouseClick(view.viewport(), LEFT, pos=QPoint(3, centre(view, 4, 0).y()))
    assert len(selection.layers) == 5 + 3 * 16


# --- What is seen and heard ---------------------------------------------------------------------------------


def test_a_mixed_cell_shows_all_its_bits(view: BitsMapView, theme: Theme) -> None:
    shown = {theme.bits_color(bits).name() for bits in (4, 8)}
    assert shown <= colors_in(view, 2, 5)
    assert theme.bits_color(8).name() not in colors_in(view, 1, 5)


def test_partly_selected_looks_unlike_selected_and_not(view: BitsMapView, selection: Selection) -> None:
    layers = GRID.layers_at(1, 5)
    seen = []
    for chosen in ((), layers[:5], layers):
        selection.select(chosen)
        seen.append(picture(view).copy(view.pixels.rect(1, 5) if view.pixels else picture(view).rect()))
    assert seen[0] != seen[1]
    assert seen[1] != seen[2]


def test_a_screen_reader_hears_the_folded_cell(qtbot: QtBot, view: BitsMapView, selection: Selection) -> None:
    qtbot.mouseClick(view.viewport(), LEFT, pos=centre(view, 2, 5))
    assert view.accessibleDescription() == (
        "block 2, mlp.experts.*.gate_proj, 16 experts collapsed, 4 bits (8); 8 bits (8), selected"
    )
    selection.select(GRID.layers_at(2, 5)[:1])
    assert view.accessibleDescription().endswith("partly selected")


def test_tooltips_tell_what_is_folded_and_what_opens_it(view: BitsMapView) -> None:
    assert "16 experts" in view.tip_at(centre(view, 2, 5))
    for point in (box(view), heading(view)):
        assert view.tip_at(point).startswith(f"{GATE} of 16 experts")
        assert "double-click shows" in view.tip_at(point)


def test_a_filter_lights_a_cell_of_which_it_matches_one(view: BitsMapView, theme: Theme) -> None:
    view.set_matches(frozenset({GRID.layers_at(1, 5)[7]}))
    assert theme.bits_color(4).name() in colors_in(view, 1, 5)
    assert theme.bits_color(4).name() not in colors_in(view, 1, 6)


@pytest.mark.parametrize(("severity", "role"), [("cannot", "bad"), ("slow", "warning")])
def test_what_an_engine_minds_has_a_corner_in_its_color(
    view: BitsMapView, theme: Theme, severity: str, role: str
) -> None:
    plain, expert = GRID.layer_at(3, 0), GRID.layers_at(3, 6)[11]
    mark = EngineIssue("", severity, "no kernel", None)  # type: ignore[arg-type]
    view.show_layers(GRID, sheet_of({plain: mark, expert: mark}))
    for column in (0, 6):
        assert theme.color(role).name() in colors_in(view, 3, column)
        assert theme.color(role).name() not in colors_in(view, 2, column)
        assert "no kernel" in view.tip_at(centre(view, 3, column))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("zoom", [0.1, 0.5, 1.0, 3.0])
def test_everything_is_painted_at_every_size(
    view: BitsMapView, theme: Theme, selection: Selection, scheme: str, zoom: float
) -> None:
    theme.set_scheme(scheme)
    selection.select(GRID.layers_at(2, 5)[:3])
    mark = EngineIssue("", "cannot", "no kernel", None)
    for grid in (GRID, GRID.unfold(GATE)):
        view.show_layers(grid, sheet_of(dict.fromkeys(selection.layers, mark)))
        view.set_zoom(zoom)
        assert picture(view).pixelColor(1, 1).isValid()
    assert QColor(view.palette().base().color()).isValid()
