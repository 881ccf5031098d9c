"""A label that gives way, never grows past its room and never takes text for markup."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QImage, QPalette
from pytestqt.qtbot import QtBot

from app.theme import Theme
from app.widgets.elided_label import ElidedLabel

LONG = "/a/very/long/path/that/does/not/fit/into/a/narrow/window/model"


@pytest.fixture
def label(qtbot: QtBot, theme: Theme) -> ElidedLabel:
    made = ElidedLabel(theme)
    qtbot.addWidget(made)
    made.resize(120, 24)
    made.show()
    return made


def pixels(label: ElidedLabel) -> QImage:
    return label.grab().toImage()


def test_it_asks_for_little_and_takes_what_it_needs(label: ElidedLabel) -> None:
    label.set_text(LONG)
    assert label.minimumSizeHint().width() < 100 < label.sizeHint().width()


def test_what_was_cut_is_in_the_tooltip_and_still_the_text(label: ElidedLabel) -> None:
    label.set_text(LONG)
    assert LONG in label.toolTip()
    assert label.text() == LONG
    label.set_text("short")
    assert label.toolTip() == ""


def test_with_more_room_the_tooltip_goes(label: ElidedLabel) -> None:
    label.set_text(LONG)
    label.resize(2000, 24)
    assert label.toolTip() == ""


def test_the_longer_story_is_told_below_what_was_cut(label: ElidedLabel) -> None:
    label.set_text(LONG, "1,234 bytes")
    assert f"{LONG}\n1,234 bytes" in label.toolTip()


def test_it_says_the_same_to_a_screen_reader(label: ElidedLabel) -> None:
    label.set_text("269 MB", "269,000,000 bytes")
    assert (label.text(), label.accessibleDescription()) == ("269 MB", "269,000,000 bytes")
    assert "269,000,000 bytes" in label.toolTip()


def test_markup_is_text(label: ElidedLabel) -> None:
    label.setText("<img src='file:///etc/passwd'>" * 9)
    assert "<img" not in label.toolTip()


def test_a_path_is_cut_in_its_middle(qtbot: QtBot, theme: Theme, label: ElidedLabel) -> None:
    middle = ElidedLabel(theme, middle=True)
    qtbot.addWidget(middle)
    middle.resize(label.size())
    for each in (label, middle):
        each.setText(LONG)
    assert pixels(label) != pixels(middle)
    for each in (label, middle):
        each.setText("short")
    assert pixels(label) == pixels(middle)


def test_words_keep_their_order_in_a_window_from_right_to_left(label: ElidedLabel) -> None:
    label.setText("116 MB")
    label.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
    usual = pixels(label)
    label.setAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
    label.setLayoutDirection(Qt.LayoutDirection.RightToLeft)
    assert pixels(label) == usual


def test_its_color_follows_the_theme(label: ElidedLabel, theme: Theme) -> None:
    label.set_role("bad")
    for scheme in ("light", "dark"):
        theme.set_scheme(scheme)
        assert label.palette().color(QPalette.ColorRole.WindowText) == theme.color("bad")
