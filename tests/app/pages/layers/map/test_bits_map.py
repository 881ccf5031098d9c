"""The painted map: what a press or a key selects, what a screen reader is told, and which pixels have which color."""

from __future__ import annotations

import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QColor, QWheelEvent
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from app.pages.layers.layer_grid import OUTER_ROW, LayerGrid, make_grid
from app.pages.layers.layer_sheet import LayerSheet, make_sheet
from app.pages.layers.map.bits_map import BitsMapView
from app.pages.layers.map.colors import Scale
from app.pages.layers.selection import Selection
from app.theme import Theme
from core.bitsmap import BitsMap, Rule
from core.model.tree import resolve_schemes
from core.schemes import LayerScheme
from tests.app.pages.layers.map.painted_map import centre, picture
from tests.core.paper_model import llama, seeing

LEFT = Qt.MouseButton.LeftButton
CTRL, SHIFT = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.ShiftModifier
TREE = llama(6, tied=False)
GRID = make_grid(TREE)
DOWN = GRID.titles.index("down")


def sheet_of(bits_map: BitsMap, losses: dict[int, float] | None = None) -> LayerSheet:
    return make_sheet(TREE, resolve_schemes(TREE, bits_map), "auto_round", losses or {})


@pytest.fixture
def view(qtbot: QtBot, theme: Theme, selection: Selection) -> BitsMapView:
    made = BitsMapView(theme, selection)
    qtbot.addWidget(made)
    made.resize(600, 400)
    made.show_layers(GRID, sheet_of(BitsMap(LayerScheme(4, 64), (Rule("*.down_proj", bits=8),))))
    made.show()
    return made


def color_at(view: BitsMapView, row: int, column: int) -> QColor:
    """The color in the left of a cell, where neither text nor mark nor outline is."""
    assert view.pixels is not None
    rect = view.pixels.rect(row, column).translated(-view.offset)
    return picture(view).pixelColor(rect.left() + 6, rect.center().y())


# --- Colors ------------------------------------------------------------------------------------------------


def test_cells_have_the_colors_of_their_bits(view: BitsMapView, theme: Theme) -> None:
    assert color_at(view, 2, DOWN) == theme.bits_color(8)
    assert color_at(view, 2, 0) == theme.bits_color(4)
    assert color_at(view, OUTER_ROW, 1) == theme.bits_color(16)


def test_the_colors_follow_the_map(view: BitsMapView, theme: Theme) -> None:
    view.show_layers(GRID, sheet_of(BitsMap(LayerScheme(3, 64))))
    assert color_at(view, 2, DOWN) == theme.bits_color(3)


def test_a_selection_changes_no_color(view: BitsMapView, selection: Selection) -> None:
    before, color = picture(view), color_at(view, 2, 0)
    selection.select([GRID.layer_at(2, 0)])
    assert picture(view) != before
    assert color_at(view, 2, 0) == color


def test_what_the_filter_leaves_out_is_faded(view: BitsMapView, theme: Theme) -> None:
    view.set_matches(frozenset(GRID.column(DOWN)))
    assert color_at(view, 2, DOWN) == theme.bits_color(8)
    assert color_at(view, 2, 0).lightness() > theme.bits_color(4).lightness()


@pytest.mark.parametrize("coloring", ["size", "loss"])
def test_figures_go_from_one_end_of_the_scale_to_the_other(view: BitsMapView, theme: Theme, coloring: str) -> None:
    scales: list[Scale] = []
    view.scale_changed.connect(scales.append)
    view.show_layers(GRID, sheet_of(BitsMap(LayerScheme(4, 64)), {0: 0.5, 5: 2.5}))
    view.set_coloring(coloring)
    assert scales[-1].low is not None
    assert scales[-1].low != scales[-1].high
    last = (OUTER_ROW, 1) if coloring == "size" else (5, 0)
    assert color_at(view, *last) == theme.cividis(1.0)


def test_a_block_without_a_loss_has_no_color_of_the_scale(view: BitsMapView, theme: Theme) -> None:
    view.show_layers(GRID, sheet_of(BitsMap(LayerScheme(4, 64)), {0: 0.5}))
    view.set_coloring("loss")
    assert color_at(view, 3, 0) == theme.color("line")


def test_it_follows_a_dark_theme(view: BitsMapView, theme: Theme) -> None:
    empty = QPoint(view.viewport().width() - 3, view.viewport().height() - 3)
    light = picture(view).pixelColor(empty)
    theme.set_scheme("dark")
    QApplication.processEvents()
    assert picture(view).pixelColor(empty).lightness() < light.lightness()


# --- Mouse --------------------------------------------------------------------------------------------------


def test_a_click_selects_the_cell_under_it(qtbot: QtBot, view: BitsMapView, selection: Selection) -> None:
    qtbot.mouseClick(view.viewport(), LEFT, pos=centre(view, 3, 2))
    assert selection.layers == {GRID.layer_at(3, 2)}


def test_a_drag_selects_a_rectangle(qtbot: QtBot, view: BitsMapView, selection: Selection) -> None:
    qtbot.mousePress(view.viewport(), LEFT, pos=centre(view, 1, 1))
    qtbot.mouseMove(view.viewport(), centre(view, 3, 2))
    qtbot.mouseRelease(view.viewport(), LEFT, pos=centre(view, 3, 2))
    assert selection.layers == set(GRID.within((1, 1), (3, 2)))


def test_ctrl_and_shift_clicks(qtbot: QtBot, view: BitsMapView, selection: Selection) -> None:
    qtbot.mouseClick(view.viewport(), LEFT, pos=centre(view, 0, 0))
    qtbot.mouseClick(view.viewport(), LEFT, SHIFT, centre(view, 1, 1))
    qtbot.mouseClick(view.viewport(), LEFT, CTRL, centre(view, 5, 5))
    assert selection.layers == {*GRID.within((0, 0), (1, 1)), GRID.layer_at(5, 5)}


def test_a_title_selects_its_column_and_a_number_its_row(qtbot: QtBot, view: BitsMapView, selection: Selection) -> None:
    qtbot.mouseClick(view.viewport(), LEFT, pos=QPoint(centre(view, 0, DOWN).x(), 5))
    assert selection.layers == set(GRID.column(DOWN))
    qtbot.mouseClick(view.viewport(), LEFT, pos=QPoint(3, centre(view, 4, 0).y()))
    assert selection.layers == set(GRID.row(4))


def test_the_head_is_selected_by_itself(qtbot: QtBot, view: BitsMapView, selection: Selection) -> None:
    qtbot.mouseClick(view.viewport(), LEFT, pos=centre(view, OUTER_ROW, 1))
    assert {TREE.linears[layer].name for layer in selection.layers} == {"lm_head"}


def test_the_embedding_is_no_layer(qtbot: QtBot, view: BitsMapView, selection: Selection) -> None:
    qtbot.mouseClick(view.viewport(), LEFT, pos=centre(view, OUTER_ROW, 0))
    assert selection.layers == frozenset()
    assert "embedding" in view.tip_at(centre(view, OUTER_ROW, 0))


def test_the_tooltip_tells_all(view: BitsMapView) -> None:
    text = view.tip_at(centre(view, 2, DOWN))
    assert "model.layers.2.mlp.down_proj" in text
    assert "rule 1" in text


def wheel(view: BitsMapView, notches: int, modifiers: Qt.KeyboardModifier) -> None:
    """One turn of the wheel in the middle of the map."""
    place = QPointF(view.viewport().rect().center())
    turned = QWheelEvent(
        place,
        view.viewport().mapToGlobal(place),
        QPoint(),
        QPoint(0, 120 * notches),
        Qt.MouseButton.NoButton,
        modifiers,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    QApplication.sendEvent(view.viewport(), turned)


def test_the_wheel_zooms_with_ctrl_only(view: BitsMapView) -> None:
    wheel(view, 2, Qt.KeyboardModifier.NoModifier)
    assert view.zoom == 1.0
    wheel(view, 2, CTRL)
    assert view.zoom > 1.0


def test_zooming_keeps_the_place_under_the_mouse(view: BitsMapView) -> None:
    place = centre(view, 3, 3)
    view.set_zoom(3.0, place)
    assert view.pixels is not None
    hit = view.pixels.hit(place, view.offset)
    assert (hit.part, hit.row, hit.column) == ("cell", 3, 3)


def test_zooming_out_ends_with_cells_that_can_be_seen(view: BitsMapView) -> None:
    view.set_zoom(0.0001)
    assert view.pixels is not None
    assert view.pixels.cell.height() >= 3
    view.grab()


# --- Keys ---------------------------------------------------------------------------------------------------


def test_arrows_move_and_shift_extends(qtbot: QtBot, view: BitsMapView, selection: Selection) -> None:
    qtbot.mouseClick(view.viewport(), LEFT, pos=centre(view, 1, 1))
    qtbot.keyClick(view, Qt.Key.Key_Down)
    assert selection.layers == {GRID.layer_at(2, 1)}
    qtbot.keyClick(view, Qt.Key.Key_Right, SHIFT)
    assert selection.layers == {GRID.layer_at(2, 1), GRID.layer_at(2, 2)}


def test_space_toggles_where_ctrl_moved(qtbot: QtBot, view: BitsMapView, selection: Selection) -> None:
    qtbot.mouseClick(view.viewport(), LEFT, pos=centre(view, 0, 0))
    qtbot.keyClick(view, Qt.Key.Key_Down, CTRL)
    qtbot.keyClick(view, Qt.Key.Key_Down, CTRL)
    qtbot.keyClick(view, Qt.Key.Key_Space)
    assert selection.layers == {GRID.layer_at(0, 0), GRID.layer_at(2, 0)}


def test_the_current_cell_is_brought_into_view(qtbot: QtBot, view: BitsMapView) -> None:
    view.set_zoom(4.0)
    qtbot.keyClick(view, Qt.Key.Key_Down)
    qtbot.keyClick(view, Qt.Key.Key_End, CTRL)
    assert view.pixels is not None
    hit = view.pixels.hit(centre(view, 5, 6), view.offset)
    assert (hit.row, hit.column) == (5, 6)
    assert view.viewport().rect().contains(centre(view, 5, 6))


def test_ctrl_0_fits_the_map_in_again(qtbot: QtBot, view: BitsMapView) -> None:
    qtbot.keyClick(view, Qt.Key.Key_Plus, CTRL)
    assert view.zoom > 1.0
    qtbot.keyClick(view, Qt.Key.Key_0, CTRL)
    assert view.zoom == 1.0


def test_a_screen_reader_hears_the_current_cell(qtbot: QtBot, view: BitsMapView) -> None:
    assert view.accessibleName()
    qtbot.mouseClick(view.viewport(), LEFT, pos=centre(view, 2, DOWN))
    said = view.accessibleDescription()
    assert said.startswith("block 2, mlp.down_proj, 8 bits")
    assert said.endswith(", selected")


# --- Sizes --------------------------------------------------------------------------------------------------


def test_thirty_blocks_fit_a_small_window_without_zoom(qtbot: QtBot, theme: Theme, selection: Selection) -> None:
    tree = llama(30)
    view = BitsMapView(theme, selection)
    qtbot.addWidget(view)
    view.resize(540, 560)
    view.show_layers(make_grid(tree), make_sheet(tree, resolve_schemes(tree, BitsMap()), "auto_round", {}))
    view.show()
    assert view.horizontalScrollBar().maximum() == 0
    assert view.verticalScrollBar().maximum() == 0


def test_many_kinds_stand_on_end_and_scroll(qtbot: QtBot, theme: Theme, selection: Selection) -> None:
    kinds = {f"mlp.strange_module_{number}": (64, 64) for number in range(200)}
    tree = llama(2, shapes=kinds)
    view = BitsMapView(theme, selection)
    qtbot.addWidget(view)
    view.resize(540, 400)
    view.show_layers(make_grid(tree), make_sheet(tree, resolve_schemes(tree, BitsMap()), "auto_round", {}))
    view.show()
    assert view.pixels is not None
    assert view.pixels.upright
    assert view.horizontalScrollBar().maximum() > 0
    view.grab()


def test_nothing_to_show_is_painted_too(view: BitsMapView, selection: Selection) -> None:
    view.show_layers(None, None)
    view.grab()
    assert view.tip_at(QPoint(50, 50)) == ""


def test_a_map_without_blocks_is_painted_too(view: BitsMapView) -> None:
    empty = LayerGrid((), (), 0, (), (), ())
    tree = llama(0)
    view.show_layers(empty, make_sheet(tree, (), "auto_round", {}))
    view.grab()
    assert view.tip_at(QPoint(50, 50)) == ""


# --- Parts that are not quantized --------------------------------------------------------------------------


@pytest.fixture
def seeing_view(qtbot: QtBot, theme: Theme, selection: Selection) -> BitsMapView:
    tree = seeing(6)
    made = BitsMapView(theme, selection)
    qtbot.addWidget(made)
    made.resize(600, 400)
    plans = resolve_schemes(tree, BitsMap(LayerScheme(4, 64)))
    made.show_layers(make_grid(tree), make_sheet(tree, plans, "auto_round", {}))
    made.show()
    return made


def copied_centre(view: BitsMapView, number: int) -> QPoint:
    assert view.pixels is not None
    return view.pixels.copied_rect(number, view.offset, view.viewport().size()).center()


def test_copied_parts_have_rows_above_the_blocks(seeing_view: BitsMapView, theme: Theme) -> None:
    assert copied_centre(seeing_view, 1).y() < centre(seeing_view, 0, 0).y()
    assert color_at(seeing_view, 0, 0) == theme.bits_color(4)


def test_a_copied_part_is_explained(seeing_view: BitsMapView) -> None:
    first, second = (seeing_view.tip_at(copied_centre(seeing_view, number)) for number in (0, 1))
    assert first.startswith("model.vision_tower: vision tower, 9.59 MB in 2 tensors (BF16).")
    assert second.startswith("model.multi_modal_projector: projector, ")


def test_a_click_on_a_tower_selects_its_linear_layers(
    qtbot: QtBot, seeing_view: BitsMapView, selection: Selection
) -> None:
    qtbot.mouseClick(seeing_view.viewport(), LEFT, pos=copied_centre(seeing_view, 0))
    names = [seeing(6).nameable[layer].name for layer in selection.layers]
    assert names == ["model.vision_tower.encoder.layers.0.mlp.fc1"]


def test_a_tower_with_bits_has_their_color_and_says_so(seeing_view: BitsMapView, theme: Theme) -> None:
    tree = seeing(6)
    plans = resolve_schemes(tree, BitsMap(LayerScheme(4, 64), towers=8))
    seeing_view.show_layers(make_grid(tree), make_sheet(tree, plans, "auto_round", {}))
    assert seeing_view.pixels is not None
    row = seeing_view.pixels.copied_rect(0, seeing_view.offset, seeing_view.viewport().size())
    assert picture(seeing_view).pixelColor(row.topLeft() + QPoint(2, 2)) == theme.bits_color(8)


def test_the_cells_below_copied_parts_are_where_they_are_painted(
    qtbot: QtBot, seeing_view: BitsMapView, selection: Selection
) -> None:
    qtbot.mouseClick(seeing_view.viewport(), LEFT, pos=centre(seeing_view, 5, 6))
    assert selection.layers == frozenset({make_grid(seeing(6)).layer_at(5, 6)})
