"""The Layers page: selecting, setting, undoing, filtering, and what it says where there is nothing to show."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QAbstractButton, QApplication, QLabel, QLineEdit, QPushButton, QScrollArea
from pytestqt.qtbot import QtBot

from app.pages.layers.page import LayersPage
from core.bitsmap import BitsMap, Rule
from core.model.tree import TOWER, build_tree
from core.schemes import LayerScheme
from core.spec import JobSpec
from core.wording import human
from tests.app.find import find
from tests.app.pages.layers.parts import label, model, schemes, select_kind
from tests.core.paper_model import llama, seeing

CTRL = Qt.KeyboardModifier.ControlModifier


# --- Nothing to show ----------------------------------------------------------------------------------------


def test_without_a_model_it_says_what_will_be_here(qtbot: QtBot, empty: LayersPage, visited: list[str]) -> None:
    assert empty.notice.isVisible()
    qtbot.mouseClick(empty.notice.button, Qt.MouseButton.LeftButton)
    assert visited == ["model"]


def test_a_model_without_layers_says_why(qtbot: QtBot, empty: LayersPage, visited: list[str]) -> None:
    empty.context.draft.choose(model=model(build_tree({}, {})))
    assert "No decoder blocks" in label(empty, "notice_text")
    qtbot.mouseClick(empty.notice.button, Qt.MouseButton.LeftButton)
    assert visited == ["model"]


def test_blocks_of_absurd_numbers_are_not_laid_out(empty: LayersPage) -> None:
    far = replace(llama(2), refusal="They are not numbered without gaps.")
    last = replace(far.linears[-1], block=999_999)
    empty.context.draft.choose(model=model(replace(far, linears=(*far.linears[:-1], last))))
    assert "gaps" in label(empty, "notice_text")


def test_a_map_of_another_model_can_be_replaced_and_that_undone(empty: LayersPage) -> None:
    draft = empty.context.draft
    draft.choose(bits_map=BitsMap(LayerScheme(3, 64), (Rule("*.no_such_layer", bits=8),)), model=model(llama(2)))
    assert "no_such_layer" in label(empty, "notice_text")
    empty.notice.button.click()
    assert draft.choices.bits_map == BitsMap(LayerScheme(3, 64))
    assert empty.body.isVisible()
    draft.undo_stack.undo()
    assert empty.notice.isVisible()


def test_no_model_any_more(page: LayersPage) -> None:
    page.select_all()
    page.context.draft.choose(model=None)
    assert page.notice.isVisible()
    assert page.selection.layers == frozenset()


# --- Setting ------------------------------------------------------------------------------------------------


def tower_bits(page: LayersPage) -> list[int]:
    return [plan.scheme.bits for plan in page.context.draft.plans if plan.linear.block == TOWER]


def test_the_layers_of_towers_can_have_8_bits_but_not_3(empty: LayersPage) -> None:
    tree, draft = seeing(2), empty.context.draft
    draft.choose(model=model(tree), bits_map=BitsMap(LayerScheme(4, 64)))
    empty.selection.select(place for place, linear in enumerate(tree.linears) if linear.block == TOWER)
    empty.set_keys(bits=3)
    assert (tower_bits(empty), draft.undo_stack.count()) == ([16, 16], 0)
    empty.set_keys(bits=8)
    assert tower_bits(empty) == [8, 8]
    draft.undo_stack.undo()
    assert tower_bits(empty) == [16, 16]


def test_one_layer_of_towers_with_bits_can_be_copied(empty: LayersPage) -> None:
    tree, draft = seeing(2), empty.context.draft
    draft.choose(model=model(tree), bits_map=BitsMap(LayerScheme(4, 64), towers=8))
    empty.selection.select([len(tree.linears) - 1])
    empty.set_keys(bits=16)
    assert tower_bits(empty) == [8, 16]


@pytest.mark.parametrize(
    ("key", "label"),
    [("2", "W2 g64 sym"), ("3", "W3 g64 sym"), ("4", "W4 g64 sym"), ("8", "W8 g64 sym"), ("0", "16 bit")],
)
def test_keys_set_the_bits_of_what_is_selected(qtbot: QtBot, page: LayersPage, key: str, label: str) -> None:
    select_kind(page, "down")
    page.set_keys(bits=3 if key != "3" else 2)
    qtbot.keyClicks(page.body.map, key)
    assert schemes(page) == {label}


def test_keys_work_in_the_table_too(qtbot: QtBot, page: LayersPage) -> None:
    page.body.view.button("table").click()
    select_kind(page, "down")
    assert page.body.table.hasFocus()
    qtbot.keyClicks(page.body.table, "8")
    assert schemes(page) == {"W8 g64 sym"}


def test_digits_in_the_filter_are_text(qtbot: QtBot, page: LayersPage) -> None:
    page.select_all()
    qtbot.keyClicks(page.body.filter.field, "8")
    assert page.body.filter.field.text() == "8"
    assert schemes(page) == {"W4 g64 sym"}


def test_the_panel_sets_group_and_symmetry(page: LayersPage) -> None:
    select_kind(page, "up_proj")
    page.body.inspector.group.button(32).click()
    page.body.inspector.sym.button(False).click()
    assert schemes(page) == {"W4 g32 asym"}


def test_an_edit_is_one_step_of_undo(qtbot: QtBot, page: LayersPage) -> None:
    before = page.context.draft.choices.bits_map
    page.select_all()
    page.set_keys(bits=2)
    assert page.context.draft.undo_stack.undoText() == "2 bits, 210 layers"
    qtbot.keyClick(page.body.map, Qt.Key.Key_Z, CTRL)
    assert page.context.draft.choices.bits_map == before
    qtbot.keyClick(page.body.map, Qt.Key.Key_Z, CTRL | Qt.KeyboardModifier.ShiftModifier)
    assert schemes(page) == {"W2 g64 sym"}


def test_undo_and_redo_are_buttons_that_say_what_they_do(page: LayersPage) -> None:
    panel = page.body.side
    assert not panel.undo.isEnabled()
    page.select_all()
    page.set_keys(bits=8)
    assert "8 bits" in panel.undo.toolTip()
    panel.undo.click()
    assert panel.redo.isEnabled()
    panel.redo.click()
    assert schemes(page) == {"W8 g64 sym"}


def test_reset_all_can_be_undone(page: LayersPage) -> None:
    page.select_all()
    page.set_keys(bits=8)
    page.body.side.reset.trigger()
    assert page.context.draft.choices.bits_map.layers == ()
    page.context.draft.undo_stack.undo()
    assert schemes(page) == {"W8 g64 sym"}


def test_without_a_selection_nothing_is_set(qtbot: QtBot, page: LayersPage, said: list[str]) -> None:
    qtbot.keyClicks(page.body.map, "8")
    assert page.context.draft.undo_stack.count() == 0
    assert said == ["Select layers first."]


def test_all_layers_are_not_the_head(page: LayersPage) -> None:
    page.context.draft.choose(model=model(llama(2, tied=False)))
    page.select_all()
    assert len(page.selection.layers) == 14


def test_the_head_gets_bits_where_it_is_meant(page: LayersPage) -> None:
    page.context.draft.choose(model=model(llama(2, tied=False)))
    select_kind(page, "lm_head")
    page.set_keys(bits=8)
    assert schemes(page) == {"W8 g64 sym"}
    page.set_keys(bits=16)
    assert page.context.draft.choices.bits_map.layers == ()


# --- What the panel says ------------------------------------------------------------------------------------


def test_one_layer_is_named(page: LayersPage) -> None:
    page.selection.select([0])
    assert label(page, "selection_title").replace("\u200b", "") == page.context.draft.plans[0].linear.name


def test_several_are_counted_and_weighed(page: LayersPage) -> None:
    select_kind(page, "down")
    assert label(page, "selection_title") == "30 layers selected"
    assert label(page, "selection_size").startswith(human(30 * 2 * 576 * 1536))


def test_mixed_bits_leave_the_buttons_open(page: LayersPage) -> None:
    page.selection.select([0])
    page.set_keys(bits=8)
    assert page.body.inspector.bits.value == 8
    page.selection.select([0, 1])
    assert page.body.inspector.bits.value is None


def test_a_fallback_is_explained(page: LayersPage) -> None:
    page.selection.select([0, 1])
    page.set_keys(group_size=128)
    assert "128 does not divide 576: 64" in label(page, "fallback")


def test_the_reason_names_the_rule(page: LayersPage) -> None:
    page.context.draft.edit_map(BitsMap(LayerScheme(4, 64), (Rule("*.down_proj", bits=8),)), "rule")
    select_kind(page, "down")
    assert label(page, "why").replace("\u200b", "") == "rule 1  *.down_proj"


def test_the_pattern_of_a_rule_breaks_at_its_dots(page: LayersPage) -> None:
    rule = Rule("model.layers.[0-9]*.self_attn.[o-q]_proj", bits=8)
    page.context.draft.edit_map(BitsMap(LayerScheme(4, 64), (rule,)), "rule")
    select_kind(page, "q_proj")
    why = find(page, QLabel, "why")
    assert max(map(why.fontMetrics().horizontalAdvance, why.text().split("\u200b"))) < why.width()
    assert why.fontMetrics().horizontalAdvance(why.text()) > why.width()


def test_the_whole_output_follows_every_edit(page: LayersPage) -> None:
    before = label(page, "total")
    page.select_all()
    page.set_keys(bits=2)
    size = page.context.draft.size
    assert size is not None
    assert label(page, "total") != before
    assert label(page, "total").endswith(human(size.total))
    assert f"{size.effective_bits:.2f}" in label(page, "average")


# --- Filter -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("mlp.down", "30 layers"),
        ("*.q_proj", "30 layers"),
        (r"/layers\.[0-3]\./", "28 layers"),
        ("layers.3.mlp.up", "1 layer"),
    ],
)
def test_the_filter_counts_as_one_types(page: LayersPage, text: str, count: str) -> None:
    page.body.filter.field.setText(text)
    assert label(page, "match_count") == count
    assert len(page.table_model.nodes.nodes) == int(count.split()[0])


def test_enter_selects_the_matches(qtbot: QtBot, page: LayersPage) -> None:
    qtbot.keyClicks(page.body.filter.field, "down")
    qtbot.keyClick(page.body.filter.field, Qt.Key.Key_Return)
    assert {page.context.draft.plans[layer].linear.kind for layer in page.selection.layers} == {"mlp.down_proj"}
    assert page.body.map.hasFocus()


def test_a_bad_expression_filters_nothing(page: LayersPage) -> None:
    page.body.filter.field.setText("/(/")
    assert label(page, "match_count") == "invalid pattern"
    assert len(page.table_model.nodes.nodes) == 211
    assert not page.body.filter.select.isEnabled()


def test_all_of_a_filtered_map_are_the_matches(page: LayersPage) -> None:
    page.body.filter.field.setText("down")
    page.select_all()
    assert len(page.selection.layers) == 30


def test_esc_empties_the_filter_then_the_selection_and_then_is_not_ours(qtbot: QtBot, page: LayersPage) -> None:
    page.select_all()
    page.body.filter.field.setText("down")
    page.body.filter.field.setFocus()
    qtbot.keyClick(page.body.filter.field, Qt.Key.Key_Escape)
    assert (page.body.filter.field.text(), len(page.selection.layers)) == ("", 210)
    qtbot.keyClick(page.body.filter.field, Qt.Key.Key_Escape)
    assert page.selection.layers == frozenset()


# --- The next step ------------------------------------------------------------------------------------------


def test_next_starts_the_run(page: LayersPage, visited: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[JobSpec] = []
    monkeypatch.setattr(page.context.runs, "start", started.append)
    button = find(page, QPushButton, "next")
    button.click()
    assert [spec.model for spec in started] == ["paper"]
    assert visited == ["run"]


def test_next_says_why_it_cannot(page: LayersPage) -> None:
    page.select_all()
    page.set_keys(bits=16)
    button = find(page, QPushButton, "next")
    assert not button.isEnabled()
    assert "16 bits" in label(page, "reason")


# --- For everybody ------------------------------------------------------------------------------------------


def test_everything_that_can_be_used_has_a_name(page: LayersPage) -> None:
    nameless = [
        widget.objectName() or type(widget).__name__
        for widget in (*page.findChildren(QAbstractButton), *page.findChildren(QLineEdit))
        if not (widget.accessibleName() or getattr(widget, "text", str)())
        and not widget.objectName().startswith("qt_")
        and type(widget).__name__ not in ("QTableCornerButton", "QLineEditIconButton")
    ]
    assert nameless == []


def test_tab_goes_in_the_order_of_reading(page: LayersPage, place: QScrollArea) -> None:
    page.select_all()
    page.set_keys(bits=3)
    page.body.filter.field.setText("down")
    page.body.color_by.button("bits").setFocus()
    visited = []
    for _ in range(11):
        focused = QApplication.focusWidget()
        assert focused is not None
        visited.append(focused.objectName() or focused.accessibleName())
        place.focusNextPrevChild(True)
    assert visited == [
        "Color by bits", "filter", "select_matches", "Show the map", "bits_map", "Show the selected layers", "3 bits",
        "Groups of 64 weights", "Symmetric: no zero point, supported by most engines", "undo", "map_menu",
    ]  # fmt: skip


def test_it_fits_the_smallest_window(page: LayersPage, place: QScrollArea) -> None:
    page.select_all()
    page.set_keys(group_size=128)
    assert (place.horizontalScrollBar().maximum(), place.verticalScrollBar().maximum()) == (0, 0)
