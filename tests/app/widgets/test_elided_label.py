"""A label that gives way."""

from __future__ import annotations

import pytest
from pytestqt.qtbot import QtBot

from app.widgets.elided_label import ElidedLabel

LONG = "a long name of a model that nobody can read in a small window"


@pytest.fixture
def label(qtbot: QtBot) -> ElidedLabel:
    made = ElidedLabel()
    qtbot.addWidget(made)
    made.show()
    return made


def test_it_asks_for_little_and_takes_what_it_needs(label: ElidedLabel) -> None:
    label.say(LONG)
    assert label.minimumSizeHint().width() < 100 < label.sizeHint().width()


def test_what_was_cut_is_in_the_tooltip(label: ElidedLabel) -> None:
    label.resize(60, 20)
    label.say(LONG)
    assert label.toolTip() == LONG


def test_what_fits_needs_no_tooltip(label: ElidedLabel) -> None:
    label.resize(900, 20)
    label.say(LONG)
    assert label.toolTip() == ""


def test_the_longer_story_is_told_below_what_was_cut(label: ElidedLabel) -> None:
    label.resize(60, 20)
    label.say(LONG, "1,234 bytes")
    assert label.toolTip() == f"{LONG}\n1,234 bytes"


def test_it_says_the_same_to_a_screen_reader(label: ElidedLabel) -> None:
    label.say("269 MB", "269,000,000 bytes")
    assert (label.text(), label.accessibleDescription()) == ("269 MB", "269,000,000 bytes")
