"""The rules of the map: written, moved, deleted, made of a selection, each as one step of undo."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from pytestqt.qtbot import QtBot

from app.pages.layers.page import LayersPage
from app.pages.layers.rules.rule_list import RuleRow
from core.bitsmap import BitsMap, Rule
from core.schemes import LayerScheme
from tests.app.pages.layers.parts import label, select_kind

ALT = Qt.KeyboardModifier.AltModifier
THREE = (Rule("*.mlp.*", 3), Rule("*.down_proj", 8), Rule("*.layers.0.*", 4))


@pytest.fixture
def rules(page: LayersPage) -> LayersPage:
    page.context.draft.edit_map(BitsMap(LayerScheme(4, 64), THREE), "rules")
    page.body.side.show_view("rules")
    return page


def matches(page: LayersPage) -> list[str]:
    return [rule.match for rule in page.context.draft.choices.bits_map.rules]


def row(page: LayersPage, place: int) -> RuleRow:
    found = page.body.side.rules.list.item(place).data(Qt.ItemDataRole.UserRole)
    assert isinstance(found, RuleRow)
    return found


def write(qtbot: QtBot, page: LayersPage, pattern: str) -> None:
    editor = page.body.side.rules.editor
    assert editor is not None
    editor.field.clear()
    qtbot.keyClicks(editor.field, pattern)


def test_each_says_what_it_gives_and_does(qtbot: QtBot, rules: LayersPage) -> None:
    qtbot.waitUntil(lambda: row(rules, 0).does != "")
    assert (row(rules, 0).gives, row(rules, 0).does) == ("3 bits", "90 layers, decides 58")


def test_a_rule_that_does_nothing_says_why(qtbot: QtBot, rules: LayersPage) -> None:
    rules.context.draft.edit_map(BitsMap(LayerScheme(4, 64), (*THREE, Rule("*", 2))), "all")
    qtbot.waitUntil(lambda: row(rules, 1).idle)
    assert row(rules, 1).does.startswith("No effect. ")


def test_adding_counts_while_one_types(qtbot: QtBot, rules: LayersPage) -> None:
    panel = rules.body.side.rules
    panel.add.click()
    write(qtbot, rules, "*.k_proj")
    assert label(rules, "rule_count") == "30 layers"
    assert panel.editor is not None
    qtbot.keyClick(panel.editor.field, Qt.Key.Key_Return)
    found = [rules.context.draft.choices.bits_map.rules]
    rules.context.draft.undo_stack.undo()
    found.append(rules.context.draft.choices.bits_map.rules)
    assert found == [(*THREE, Rule("*.k_proj", 8)), THREE]


@pytest.mark.parametrize(("pattern", "words"), [("*.nothing", "No layer"), ("/(/", "Invalid pattern")])
def test_a_pattern_of_no_layer_cannot_be_kept(qtbot: QtBot, rules: LayersPage, pattern: str, words: str) -> None:
    panel = rules.body.side.rules
    panel.add.click()
    write(qtbot, rules, pattern)
    assert words in label(rules, "rule_count")
    assert panel.editor is not None
    assert not panel.editor.save.isEnabled()
    qtbot.keyClick(panel.editor.field, Qt.Key.Key_Return)
    assert rules.context.draft.choices.bits_map.rules == THREE


def test_a_rule_is_edited_in_its_place(qtbot: QtBot, rules: LayersPage) -> None:
    panel = rules.body.side.rules
    panel.list.setCurrentRow(1)
    qtbot.keyClick(panel.list, Qt.Key.Key_Return)
    assert panel.editor is not None
    assert panel.list.itemWidget(panel.list.item(1)) is panel.editor
    panel.editor.bits.setCurrentIndex(panel.editor.bits.findData(2))
    panel.editor.group.setCurrentIndex(panel.editor.group.findData(32))
    panel.editor.save.click()
    assert rules.context.draft.choices.bits_map.rules[1] == Rule("*.down_proj", 2, 32)
    assert panel.editor is None


def test_esc_leaves_a_rule_as_it_was(qtbot: QtBot, rules: LayersPage) -> None:
    panel = rules.body.side.rules
    panel.list.edit_wanted.emit(0)
    write(qtbot, rules, "*.k_proj")
    editor = panel.editor
    assert editor is not None
    qtbot.keyClick(editor.field, Qt.Key.Key_Escape)
    assert (panel.editor is None, matches(rules)) == (True, [rule.match for rule in THREE])
    assert panel.list.hasFocus()


def test_keys_move_and_delete(qtbot: QtBot, rules: LayersPage) -> None:
    view = rules.body.side.rules.list
    view.setCurrentRow(2)
    qtbot.keyClick(view, Qt.Key.Key_Up, ALT)
    assert matches(rules) == ["*.mlp.*", "*.layers.0.*", "*.down_proj"]
    assert view.currentRow() == 1
    qtbot.keyClick(view, Qt.Key.Key_Delete)
    assert matches(rules) == ["*.mlp.*", "*.down_proj"]
    rules.context.draft.undo_stack.undo()
    rules.context.draft.undo_stack.undo()
    assert matches(rules) == [rule.match for rule in THREE]


def test_the_ends_are_the_ends(qtbot: QtBot, rules: LayersPage) -> None:
    view = rules.body.side.rules.list
    view.setCurrentRow(0)
    qtbot.keyClick(view, Qt.Key.Key_Up, ALT)
    view.setCurrentRow(2)
    qtbot.keyClick(view, Qt.Key.Key_Down, ALT)
    assert matches(rules) == [rule.match for rule in THREE]


@pytest.mark.parametrize(("start", "before", "order"), [(0, 3, [1, 2, 0]), (2, 0, [2, 0, 1]), (0, 2, [1, 0, 2])])
def test_a_drag_moves_a_rule(qtbot: QtBot, rules: LayersPage, start: int, before: int, order: list[int]) -> None:
    model = rules.body.side.rules.list.model()
    root = rules.body.side.rules.list.rootIndex()
    assert model.moveRow(root, start, root, before)
    qtbot.waitUntil(lambda: matches(rules) == [THREE[place].match for place in order])
    rules.context.draft.undo_stack.undo()
    assert [row(rules, place).match for place in range(3)] == [rule.match for rule in THREE]


def test_digits_in_the_list_are_bits_of_the_selection(qtbot: QtBot, rules: LayersPage) -> None:
    select_kind(rules, "o_proj")
    rules.body.side.rules.list.setFocus()
    qtbot.keyClicks(rules.body.side.rules.list, "8")
    assert len(rules.context.draft.choices.bits_map.layers) == 30
    assert label(rules, "by_hand").startswith("30 layers set by name")


def test_digits_in_the_editor_are_text(qtbot: QtBot, rules: LayersPage) -> None:
    rules.select_all()
    rules.body.side.rules.add.click()
    write(qtbot, rules, "28")
    assert rules.context.draft.choices.bits_map.rules == THREE
    assert not rules.context.draft.choices.bits_map.layers


def test_a_rule_of_the_selection_takes_its_layers_over(qtbot: QtBot, rules: LayersPage) -> None:
    select_kind(rules, "o_proj")
    rules.set_keys(bits=2)
    rules.body.side.rules.of_selection.click()
    editor = rules.body.side.rules.editor
    assert editor is not None
    assert (editor.field.text(), editor.bits.currentData()) == ("*.o_proj", 2)
    editor.save.click()
    assert rules.context.draft.choices.bits_map == BitsMap(LayerScheme(4, 64), (*THREE, Rule("*.o_proj", 2)))


def test_layers_without_a_pattern_are_named(rules: LayersPage, said: list[str]) -> None:
    before = [rules.context.draft.plans[layer].scheme for layer in (0, 8)]
    rules.selection.select([0, 8])
    rules.body.side.rules.of_selection.click()
    assert len(rules.context.draft.choices.bits_map.layers) == 2
    assert [rules.context.draft.plans[layer].scheme for layer in (0, 8)] == before
    assert "by name" in said[-1]


def test_without_a_selection_there_is_nothing_to_make_a_rule_of(rules: LayersPage) -> None:
    assert not rules.body.side.rules.of_selection.isEnabled()


def test_no_rules_say_what_holds(page: LayersPage) -> None:
    page.body.side.show_view("rules")
    assert label(page, "rules_head").startswith("No rules")
    assert not page.body.side.rules.remove.isEnabled()
