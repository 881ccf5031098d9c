"""Scrolling that follows the end, or keeps the position of the reader."""

from __future__ import annotations

import pytest
from pytestqt.qtbot import QtBot

from app.pages.chat.following_scroll import FollowingScroll
from tests.app.pages.chat.parts import shown


@pytest.fixture
def view(qtbot: QtBot) -> FollowingScroll:
    made = shown(qtbot, FollowingScroll(), 400, 300)
    made.ground.resize(made.room, 1000)
    return made


def test_it_begins_at_the_end(view: FollowingScroll) -> None:
    assert view.verticalScrollBar().value() == view.verticalScrollBar().maximum() > 0


def test_it_goes_along_with_the_end(view: FollowingScroll) -> None:
    view.ground.resize(view.room, 2000)
    assert view.verticalScrollBar().value() == view.verticalScrollBar().maximum() > 1000


def test_it_stays_where_somebody_reads(view: FollowingScroll) -> None:
    view.stay_at(100)
    view.ground.resize(view.room, 2000)
    assert (view.verticalScrollBar().value(), view.following) == (100, False)


def test_it_follows_again_from_the_end_on(view: FollowingScroll) -> None:
    view.stay_at(100)
    view.to_end()
    view.ground.resize(view.room, 2000)
    assert view.verticalScrollBar().value() == view.verticalScrollBar().maximum()


def test_the_room_does_not_change_when_the_bar_comes(view: FollowingScroll) -> None:
    before = view.room
    view.ground.resize(before, 10)
    assert view.room == before
