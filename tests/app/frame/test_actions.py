"""The table of actions: unique keys, working slots, and the sheet built from it."""

from __future__ import annotations

from collections import Counter

import pytest
from PySide6.QtGui import QKeySequence
from PySide6.QtWidgets import QWidget
from pytestqt.qtbot import QtBot

from app.frame import actions
from app.frame.page_stack import PAGES

ENTRIES = (*actions.page_entries(tuple((page.id, page.title) for page in PAGES)), *actions.TABLE)


def test_no_key_means_two_things() -> None:
    keys = Counter(keys for entry in ENTRIES for keys in entry.keys)
    assert [key for key, number in keys.items() if number > 1] == []


def test_no_two_actions_share_an_id() -> None:
    assert max(Counter(entry.id for entry in ENTRIES).values()) == 1


@pytest.mark.parametrize("keys", [keys for entry in ENTRIES for keys in entry.keys])
def test_every_key_is_one_that_qt_knows(keys: str) -> None:
    assert QKeySequence(keys).toString(QKeySequence.SequenceFormat.PortableText) != ""


def test_pages_are_numbered_in_their_order() -> None:
    assert [entry.keys for entry in ENTRIES[:5]] == [("Ctrl+1",), ("Ctrl+2",), ("Ctrl+3",), ("Ctrl+4",), ("Ctrl+5",)]


def test_every_action_calls_its_own_slot(qtbot: QtBot) -> None:
    window = QWidget()
    qtbot.addWidget(window)
    called: list[str] = []
    slots = {entry.id: lambda name=entry.id: called.append(name) for entry in ENTRIES}
    made = actions.make(window, ENTRIES, slots)
    for action in made.values():
        action.trigger()
    assert called == [entry.id for entry in ENTRIES]


def test_an_action_without_a_slot_is_a_mistake(qtbot: QtBot) -> None:
    window = QWidget()
    qtbot.addWidget(window)
    with pytest.raises(KeyError):
        actions.make(window, ENTRIES, {})


def test_esc_is_left_to_the_page_first(qtbot: QtBot) -> None:
    window = QWidget()
    qtbot.addWidget(window)
    made = actions.make(window, ENTRIES, {entry.id: lambda: None for entry in ENTRIES})
    assert made["dismiss"].shortcut().isEmpty()
