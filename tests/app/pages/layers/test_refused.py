"""A model that cannot be quantized: its layers are shown and planned, and it is not run or measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLabel, QPushButton, QScrollArea
from pytestqt.qtbot import QtBot

from app.pages.layers.page import LayersPage
from app.pages.layers.side_panel import VIEWS
from core import bitsmap
from tests.app.find import find
from tests.app.pages.layers.experts import mixture
from tests.app.pages.layers.parts import label, model, schemes, select_kind
from tests.app.reading_aloud import unnamed

GATE = "mlp.experts.*.gate_proj"
TREE = mixture(6, 16, refusal="The model is an encoder-decoder; this version quantizes decoder-only models.")


@pytest.fixture
def refused(empty: LayersPage) -> LayersPage:
    empty.context.draft.choose(model=model(TREE, "experts"))
    return empty


def test_its_map_is_shown_with_experts_folded(refused: LayersPage) -> None:
    assert refused.body.isVisible()
    assert refused._grid is not None
    band = refused._grid.bands[0]
    assert (band.stem, band.experts, band.folded) == (GATE, 16, True)
    assert refused._grid.columns == 8


def test_a_column_of_experts_opens(qtbot: QtBot, refused: LayersPage) -> None:
    view = refused.body.map
    assert view.pixels is not None
    assert refused._grid is not None
    heading = view.pixels.heading(refused._grid.bands[0], view.offset, view.viewport().size())
    qtbot.mouseClick(view.viewport(), Qt.MouseButton.LeftButton, pos=view.pixels.box(heading).center())
    assert [kind for kind in refused._grid.kinds if kind.endswith("gate_proj")][15] == "mlp.experts.15.gate_proj"
    assert refused._grid.columns == 8 + 15


def test_why_it_cannot_be_run_stands_beside_the_button(refused: LayersPage) -> None:
    assert not refused.body.next.isEnabled()
    assert label(refused, "reason") == TREE.refusal
    note = find(refused, QLabel, "reason")
    assert note.isVisible()


def test_its_map_can_be_edited_undone_and_saved(refused: LayersPage, tmp_path: Path) -> None:
    select_kind(refused, "experts")
    refused.set_keys(bits=2)
    assert schemes(refused) == {"W2 g64 sym"}
    refused.save_file(tmp_path / "map.json")
    assert bitsmap.load(tmp_path / "map.json") == refused.context.draft.choices.bits_map
    small = label(refused, "total")
    refused.context.draft.undo_stack.undo()
    assert label(refused, "total") != small


def test_it_is_not_measured_and_says_why(refused: LayersPage) -> None:
    refused.body.side.show_view("budget")
    start = find(refused, QPushButton, "measure_start")
    assert (start.isEnabled(), start.toolTip()) == (False, TREE.refusal)
    assert refused.body.side.budget.allocate.toolTip() == TREE.refusal
    refused.budget.measure()
    assert start.isVisible()


def test_an_engine_marks_its_layers(refused: LayersPage) -> None:
    select_kind(refused, "up_proj")
    refused.set_keys(bits=3)
    refused.context.draft.set_engine("vllm-cuda")
    assert refused.body.map._cells is not None
    assert refused.body.map._cells.marks


@pytest.mark.parametrize("view", VIEWS)
def test_it_fits_the_smallest_window(refused: LayersPage, place: QScrollArea, view: str) -> None:
    refused.body.side.show_view(view)
    assert (place.horizontalScrollBar().maximum(), place.verticalScrollBar().maximum()) == (0, 0)
    assert unnamed(refused) == []


def test_a_map_that_does_not_fit_it_can_be_replaced(refused: LayersPage, tmp_path: Path) -> None:
    draft = refused.context.draft
    draft.choose(bits_map=bitsmap.BitsMap(draft.choices.bits_map.default, (bitsmap.Rule("*.no_such_layer", 8),)))
    assert "no_such_layer" in label(refused, "notice_text")
    refused.notice.button.click()
    assert refused.body.isVisible()
