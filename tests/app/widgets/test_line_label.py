"""A label that never grows past its room and never takes text for markup."""

from __future__ import annotations

import pytest
from PySide6.QtGui import QPalette
from pytestqt.qtbot import QtBot

from app.theme import Theme
from app.widgets.line_label import LineLabel

LONG = "/a/very/long/path/that/does/not/fit/into/a/narrow/window/model"


@pytest.fixture
def label(qtbot: QtBot, theme: Theme) -> LineLabel:
    made = LineLabel(theme)
    qtbot.addWidget(made)
    made.resize(120, 24)
    made.show()
    return made


def test_a_long_text_does_not_ask_for_room(label: LineLabel) -> None:
    label.setText(LONG)
    assert label.minimumSizeHint().width() < 120


def test_what_was_cut_is_in_the_tooltip_and_still_the_text(label: LineLabel) -> None:
    label.setText(LONG)
    assert LONG in label.toolTip()
    assert label.text() == LONG
    label.setText("short")
    assert label.toolTip() == ""


def test_with_more_room_the_tooltip_goes(label: LineLabel) -> None:
    label.setText(LONG)
    label.resize(2000, 24)
    assert label.toolTip() == ""


def test_the_exact_value_is_in_the_tooltip(label: LineLabel) -> None:
    label.setText("116 MB")
    label.set_exact("116,362,432 bytes")
    assert "116,362,432 bytes" in label.toolTip()


def test_markup_is_text(label: LineLabel) -> None:
    label.setText("<img src='file:///etc/passwd'>" * 9)
    assert "<img" not in label.toolTip()


def test_its_colour_follows_the_theme(label: LineLabel, theme: Theme) -> None:
    label.set_role("bad")
    for scheme in ("light", "dark"):
        theme.set_scheme(scheme)
        assert label.palette().color(QPalette.ColorRole.WindowText) == theme.color("bad")
