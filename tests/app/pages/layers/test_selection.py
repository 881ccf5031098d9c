"""The shared selection: what changes it, and whom it tells."""

from __future__ import annotations

import pytest

from app.pages.layers.selection import Selection


@pytest.fixture
def told(qapp: object) -> tuple[Selection, list[frozenset[int]]]:
    selection = Selection()
    changes: list[frozenset[int]] = []
    selection.changed.connect(lambda: changes.append(selection.layers))
    return selection, changes


def test_it_tells_only_of_changes(told: tuple[Selection, list[frozenset[int]]]) -> None:
    selection, changes = told
    selection.select([1, 2])
    selection.select([2, 1])
    selection.clear()
    assert changes == [{1, 2}, set()]


def test_some_more_are_added(told: tuple[Selection, list[frozenset[int]]]) -> None:
    selection, _ = told
    selection.select([1])
    selection.add([2, 3])
    assert selection.layers == {1, 2, 3}


@pytest.mark.parametrize(("first", "toggled", "after"), [([1], [1, 2], {1, 2}), ([1, 2, 3], [1, 2], {3})])
def test_toggled_layers_go_only_if_all_were_selected(
    told: tuple[Selection, list[frozenset[int]]], first: list[int], toggled: list[int], after: set[int]
) -> None:
    selection, _ = told
    selection.select(first)
    selection.toggle(toggled)
    assert selection.layers == after


def test_the_current_layer_is_told_once(qapp: object) -> None:
    selection = Selection()
    changes: list[int] = []
    selection.current_changed.connect(changes.append)
    selection.set_current(4)
    selection.set_current(4)
    assert changes == [4]
