"""The experts of a mixture in a report."""

from __future__ import annotations

from typing import Any

import pytest
from PySide6.QtWidgets import QTreeWidgetItem
from pytestqt.qtbot import QtBot

from app.pages.run.expert_list import ExpertList
from app.theme import Theme


def report(*not_tuned: list[int]) -> dict[str, Any]:
    experts = [
        [{"name": f"model.layers.{block}.mlp.experts", "tokens": [0, 7, 12, 1210], "not_tuned": few}]
        for block, few in enumerate(not_tuned)
    ]
    return {"blocks": [{"name": "", "experts": one} for one in experts]}


@pytest.fixture
def view(qtbot: QtBot, theme: Theme) -> ExpertList:
    made = ExpertList(theme)
    qtbot.addWidget(made)
    made.show_experts(report([0, 1], []))
    return made


def items(view: ExpertList, row: int | None = None) -> list[QTreeWidgetItem]:
    """The rows of the mixtures, or those of the experts of one."""
    parent = view.tree.invisibleRootItem() if row is None else items(view)[row]
    children = map(parent.child, range(parent.childCount()))
    return [child for child in children if child is not None]


def rows(view: ExpertList, row: int | None = None) -> list[list[str]]:
    return [[item.text(column) for column in range(3)] for item in items(view, row)]


def test_each_block_has_its_tokens_and_the_experts_that_were_not_tuned(view: ExpertList) -> None:
    assert rows(view) == [["1", "0 to 1,210, median 10", "2 of 4"], ["2", "0 to 1,210, median 10", "0 of 4"]]
    assert items(view)[0].toolTip(2).endswith("experts 0, 1")


def test_an_expanded_block_lists_its_experts_once(view: ExpertList) -> None:
    assert rows(view, 0) == []
    for _ in range(2):
        items(view)[0].setExpanded(True)
        items(view)[0].setExpanded(False)
    experts = rows(view, 0)
    assert experts[:3] == [["Expert 0", "0", "rounded"], ["Expert 1", "7", "rounded"], ["Expert 2", "12", ""]]
    assert len(experts) == 4


def test_the_list_grows_with_expanded_blocks_up_to_a_limit(view: ExpertList) -> None:
    view.show_experts(report(*[[]] * 4))
    heights = [view.tree.height()]
    for item in items(view)[:3]:
        item.setExpanded(True)
        heights.append(view.tree.height())
    line = view.tree.sizeHintForRow(0)
    assert [height - heights[0] for height in heights] == [0, 4 * line, 8 * line, 8 * line]
    items(view)[0].setExpanded(False)
    items(view)[1].setExpanded(False)
    assert view.tree.height() == heights[1]


def test_the_next_report_replaces_the_list(view: ExpertList) -> None:
    view.show_experts(report([3]))
    assert rows(view) == [["1", "0 to 1,210, median 10", "1 of 4"]]


def test_a_model_without_experts_has_no_list(view: ExpertList) -> None:
    view.show_experts({"blocks": [{"name": "model.layers.0"}]})
    assert view.isHidden()
