"""The Layers page: map and table as two views of one selection, the colorings, and bits maps in files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QScrollArea
from pytestqt.qtbot import QtBot

from app.pages.layers.list.layer_table import WHY
from app.pages.layers.page import LayersPage
from app.shared.context import Remedy
from core.errors import BitwrightError
from core.events import BlockDone
from core.spec import JobSpec
from tests.app.pages.layers.budget.tables import measured
from tests.app.pages.layers.parts import model, schemes, select_kind
from tests.app.recorded_runs import record_of
from tests.core.paper_model import llama


def chosen(page: LayersPage) -> set[int]:
    """The layers whose rows the table shows as selected."""
    return {layer for layer, node in page.table_model.nodes.nodes.items() if page.body.table.chosen(node)}


# --- Map and table ------------------------------------------------------------------------------------------


def test_map_and_table_share_the_selection(qtbot: QtBot, page: LayersPage, place: QScrollArea) -> None:
    place.resize(1600, 900)
    assert page.body.map.isVisible()
    table = page.body.table
    block = page.table_model.index(3, 0)
    qtbot.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=table.visualRect(block).center())
    assert {page.context.draft.plans[layer].linear.block for layer in page.selection.layers} == {3}
    page.selection.select([5, 6, 9])
    assert chosen(page) == {5, 6, 9}


def test_the_filter_does_not_change_the_selection(page: LayersPage, place: QScrollArea) -> None:
    place.resize(1600, 900)
    page.selection.select([0, 7])
    page.body.filter.field.setText("down")
    assert page.selection.layers == {0, 7}


def test_a_narrow_page_shows_one_of_them_and_remembers_which(page: LayersPage) -> None:
    assert (page.body.map.isVisible(), page.body.table.isVisible()) == (True, False)
    page.body.view.button("table").click()
    assert (page.body.map.isVisible(), page.body.table.isVisible()) == (False, True)
    assert page.context.state.value("layers/view", "") == "table"


def test_a_narrow_table_needs_no_scrolling_sideways(qtbot: QtBot, page: LayersPage, place: QScrollArea) -> None:
    page.body.view.button("table").click()
    qtbot.waitUntil(lambda: page.body.table.horizontalScrollBar().maximum() == 0)
    assert page.body.table.isColumnHidden(WHY)
    place.resize(1900, 900)
    qtbot.waitUntil(lambda: not page.body.table.isColumnHidden(WHY))


def test_a_hidden_table_catches_up(page: LayersPage) -> None:
    page.selection.select([4])
    page.body.view.button("table").click()
    assert chosen(page) == {4}


# --- Coloring ----------------------------------------------------------------------------------------------


def test_losses_are_offered_once_this_model_was_run(page: LayersPage, monkeypatch: pytest.MonkeyPatch) -> None:
    button = page.body.color_by.button("loss")
    assert not button.isEnabled()
    done = [BlockDone(block, 30, 2.0, 1.0 + block, 5, 1.0) for block in range(30)]
    for name, offered in (("another", False), ("paper", True)):
        record = record_of(done, JobSpec(model=name, output="out"))
        monkeypatch.setattr(type(page.context.runs), "record", record)
        page.context.runs.changed.emit()
        assert button.isEnabled() is offered
    button.click()
    assert "30" in page.body.legend.accessibleDescription()


def test_sensitivity_keeps_its_colors_through_edits_and_takes_those_of_the_theme(page: LayersPage) -> None:
    measured(page)
    page.body.color_by.button("sensitivity").click()
    before = page.body.map._colors
    page.select_all()
    page.set_keys(bits=2)
    assert page.body.map._colors is before
    page.context.theme.changed.emit()
    assert page.body.map._colors is not before
    page.body.color_by.button("bits").click()
    assert page.body.map._colors != before


# --- Files --------------------------------------------------------------------------------------------------


def test_a_saved_map_comes_back(page: LayersPage, tmp_path: Path) -> None:
    select_kind(page, "down")
    page.set_keys(bits=8)
    saved = page.context.draft.choices.bits_map
    page.save_file(tmp_path / "map.json")
    page.body.side.reset.trigger()
    page.open_file(str(tmp_path / "map.json"))
    assert page.context.draft.choices.bits_map == saved


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not valid JSON"),
        ('{"version": 9}', "version 9"),
        ('{"version": 1, "layers": {"a.b": {"bits": 8}}}', "a.b"),
    ],
)
def test_a_bad_file_changes_nothing_and_is_reported(
    page: LayersPage, tmp_path: Path, reports: list[tuple[BitwrightError, Remedy | None]], text: str, words: str
) -> None:
    (tmp_path / "map.json").write_text(text)
    page.open_file(tmp_path / "map.json")
    assert [words in error.message for error, _ in reports] == [True]
    assert page.context.draft.undo_stack.count() == 0


def test_a_map_that_cannot_be_written_is_reported(
    page: LayersPage, tmp_path: Path, reports: list[tuple[BitwrightError, Remedy | None]]
) -> None:
    page.save_file(tmp_path / "no such folder" / "map.json")
    assert [error.code for error, _ in reports] == ["output"]


def test_a_map_opened_before_the_model_waits_for_it(empty: LayersPage, tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text(json.dumps({"version": 1, "default": {"bits": 2}}))
    empty.open_file(tmp_path / "map.json")
    empty.context.draft.choose(model=model(llama(2)))
    empty.select_all()
    assert schemes(empty) == {"W2 g64 sym"}
