"""The right side: its views, what stands below them, and that everybody can use each view."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from PySide6.QtWidgets import QApplication, QScrollArea
from pytestqt.qtbot import QtBot

from app.pages.layers.page import LayersPage
from app.pages.layers.side_panel import VIEWS, SidePanel
from core.bitsmap import BitsMap, Rule
from core.estimation import sizes
from core.model.tree import build_tree
from core.schemes import LayerScheme
from core.wording import human
from tests.app.pages.layers.budget.tables import measured
from tests.app.pages.layers.experts import mixture
from tests.app.pages.layers.parts import label, model, select_kind
from tests.app.reading_aloud import unnamed, unreachable
from tests.core.paper_model import llama, mixture_parts


@pytest.fixture(params=VIEWS)
def busy(request: pytest.FixtureRequest, qtbot: QtBot, page: LayersPage) -> LayersPage:
    """Each view with as much to show as it can have."""
    draft = page.context.draft
    draft.edit_map(BitsMap(LayerScheme(4, 64), (Rule("*.o_proj", 2), Rule("*.down_proj", 3))), "odd")
    draft.choose(formats=("auto_round", "auto_gptq"))
    draft.set_engine("vllm-cuda")
    measured(page)
    page.select_all()
    page.body.side.show_view(request.param)
    if request.param == "rules":
        page.body.side.rules.add.click()
    qtbot.waitUntil(lambda: not page.budget._curves.busy)
    return page


def test_everything_in_a_view_has_a_name(busy: LayersPage) -> None:
    assert unnamed(busy) == []


def test_everything_in_a_view_can_be_reached(busy: LayersPage) -> None:
    assert unreachable(busy) == []


def test_a_view_fits_the_smallest_window(busy: LayersPage, place: QScrollArea) -> None:
    assert (place.horizontalScrollBar().maximum(), place.verticalScrollBar().maximum()) == (0, 0)


def test_the_view_is_remembered(qtbot: QtBot, page: LayersPage) -> None:
    page.body.side.views.button("budget").click()
    again = SidePanel(page.context.theme, page.context.state)
    qtbot.addWidget(again)
    assert (page.body.side.view, again.view, again.views.value) == ("budget", "budget", "budget")


TABS = {
    "rules": ["rule_list", "add_rule", "rule_of_selection"],
    "budget": [
        "Average bits per weight",
        "budget_slider",
        "budget_field",
        "allocate",
        "measure",
        "Predicted loss increase over size",
        "budget_choices",
    ],
    "engine": ["engine", "engine_reasons", "repair"],
}


@pytest.mark.parametrize("view", TABS)
def test_tab_goes_through_a_view_in_the_order_of_reading(
    qtbot: QtBot, page: LayersPage, place: QScrollArea, view: str
) -> None:
    draft = page.context.draft
    draft.edit_map(BitsMap(LayerScheme(4, 64), (Rule("*.o_proj", 2),)), "odd")
    draft.set_engine("vllm-cuda")
    measured(page)
    page.select_all()
    page.body.side.show_view(view)
    page.body.side.views.button(view).setFocus()
    qtbot.waitUntil(lambda: not page.budget._curves.busy)
    visited = []
    for _ in TABS[view]:
        place.focusNextPrevChild(True)
        focused = QApplication.focusWidget()
        assert focused is not None
        parent = focused.parentWidget()
        named = focused.objectName() or focused.accessibleName()
        visited.append(parent.objectName() if parent is not None and parent.objectName() == "budget_choices" else named)
    assert visited == TABS[view]


def test_a_window_that_becomes_wide_gives_the_map_its_room(page: LayersPage, place: QScrollArea) -> None:
    place.resize(1700, 900)
    assert page.body.map.width() >= 64 * 8


# --- What the map comes to ----------------------------------------------------------------------------------


def test_every_format_has_its_bytes(page: LayersPage) -> None:
    draft = page.context.draft
    draft.choose(formats=("auto_round", "auto_gptq"))
    assert draft.model is not None
    other = sizes.output_size(draft.model.tree, draft.plans, "auto_gptq")
    assert label(page, "other_formats") == f"{human(other.total)} as GPTQ"


def test_memory_to_run_it_is_held_against_what_is_free(page: LayersPage) -> None:
    assert label(page, "running_memory").endswith(" free")


def test_predicted_loss_increase_follows_every_edit(page: LayersPage) -> None:
    table = measured(page)
    page.select_all()
    page.set_keys(bits=8)
    low = label(page, "loss_increase_total")
    page.set_keys(bits=2)
    assert low.startswith("Predicted loss increase")
    assert low != label(page, "loss_increase_total")
    total = table.total(page.context.draft.plans)
    assert total is not None
    assert page._sheet is not None
    assert math.isclose(page._sheet.loss_increase_total or 0.0, total)


def test_the_selection_has_its_own_loss_increase(page: LayersPage) -> None:
    measured(page)
    select_kind(page, "down")
    assert "at the fewest bits" in label(page, "selection_loss_increase")


def test_a_tied_head_can_have_bits_of_its_own(page: LayersPage) -> None:
    measured(page)
    select_kind(page, "lm_head")
    page.set_keys(bits=8)
    assert "separate 8-bit copy" in label(page, "why")
    assert label(page, "loss_increase_total").endswith("without 1 layer")
    page.set_keys(bits=16)
    assert page.context.draft.choices.bits_map.layers == ()


def test_a_head_that_is_not_tied_can_too(page: LayersPage) -> None:
    page.context.draft.choose(model=model(llama(2, tied=False)))
    select_kind(page, "lm_head")
    page.set_keys(bits=8)
    assert label(page, "why") == "by hand"


def test_another_model_has_no_loss_increase(page: LayersPage) -> None:
    measured(page)
    page.body.color_by.button("sensitivity").click()
    page.context.draft.choose(model=replace(model(llama(2)), name="other"))
    assert not page.body.color_by.button("sensitivity").isEnabled()
    assert page.body.color_by.value == "bits"


def test_a_named_gguf_type_leaves_only_the_bits_to_choose(page: LayersPage) -> None:
    page.context.draft.choose(formats=("gguf:q4_1",))
    page.selection.select(frozenset({0}))
    inspector = page.body.inspector
    assert (inspector.bits.isEnabled(), inspector.group.isEnabled(), inspector.sym.isEnabled()) == (True, False, False)
    assert "Group size and symmetry are set by GGUF Q4_1." in inspector._mixed["sym"].text()


# --- Experts ------------------------------------------------------------------------------------------------


def test_all_experts_of_a_module_are_named_by_their_pattern(page: LayersPage) -> None:
    page.context.draft.choose(model=model(mixture(2, 4)))
    assert page._grid is not None
    page.selection.select(page._grid.layers_at(1, 5))
    assert label(page, "selection_title").replace("\u200b", "") == "model.layers.1.mlp.experts.*.gate_proj"
    page.selection.select(page._grid.column(5))
    assert label(page, "selection_title") == "8 layers selected"


def test_all_experts_of_a_module_become_one_rule(page: LayersPage) -> None:
    page.context.draft.choose(model=model(mixture(2, 4)))
    assert page._grid is not None
    page.selection.select(page._grid.layers_at(1, 5))
    page.set_keys(bits=8)
    bits_map = page.context.draft.choices.bits_map
    assert bits_map.rules == (Rule("model.layers.1.mlp.experts.*.gate_proj", bits=8),)
    assert not bits_map.layers
    page.context.draft.undo_stack.undo()
    assert not page.context.draft.choices.bits_map.rules


def test_an_expert_in_one_tensor_with_others_tells_its_slice(page: LayersPage) -> None:
    config, tensors = mixture_parts(2, 4, True, 64, 32, 4, 288, 128)
    page.context.draft.choose(model=model(build_tree(config, tensors)))
    assert page._grid is not None
    band = next(band for band in page._grid.bands if band.title == "up")
    cell = page._grid.layers_at(1, band.columns[0])
    page.selection.select(cell[2:3])
    words = label(page, "stored_in").replace("\u200b", "")
    assert words == "model.layers.1.mlp.experts.gate_up_proj, expert 2, outputs 32 to 63"
    page.selection.select(cell)
    assert label(page, "stored_in").replace("\u200b", "") == "model.layers.1.mlp.experts.gate_up_proj"
    page.selection.select(page._grid.layers_at(1, 0))
    assert label(page, "stored_in") == ""
