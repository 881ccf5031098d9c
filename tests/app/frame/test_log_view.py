"""The log: order, limit, and updates only while visible."""

from __future__ import annotations

import pytest
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QPlainTextEdit, QToolButton
from pytestqt.qtbot import QtBot

from app.frame.log_view import LogView
from app.logs import MOST_LINES, LogFeed
from app.theme import Theme
from tests.app.find import find


@pytest.fixture
def feed() -> LogFeed:
    return LogFeed()


@pytest.fixture
def view(qtbot: QtBot, theme: Theme, feed: LogFeed) -> LogView:
    made = LogView(theme, feed)
    qtbot.addWidget(made)
    return made


def test_what_was_logged_before_is_there_when_it_opens(view: LogView, feed: LogFeed) -> None:
    feed.add("info", "early")
    view.show()
    assert view.text().endswith("early")


def test_new_lines_come_while_it_is_open(qtbot: QtBot, view: LogView, feed: LogFeed) -> None:
    view.show()
    feed.add("info", "late")
    qtbot.waitUntil(lambda: view.text().endswith("late"))


def test_while_it_is_closed_lines_wait_in_the_feed(qtbot: QtBot, view: LogView, feed: LogFeed) -> None:
    view.show()
    view.hide()
    feed.add("info", "hidden")
    assert (view.text(), len(feed.take())) == ("", 1)


def test_a_flood_is_taken_in_pieces(view: LogView, feed: LogFeed) -> None:
    for number in range(3000):
        feed.add("info", str(number))
    view.show()
    assert view.text().count("\n") + 1 < 3000


def test_it_holds_no_more_than_so_many_lines(view: LogView, feed: LogFeed) -> None:
    for _ in range(2):
        for number in range(MOST_LINES):
            feed.add("info", str(number))
        view.copy()
    assert find(view, QPlainTextEdit).blockCount() <= MOST_LINES


def test_copy_takes_all_lines(view: LogView, feed: LogFeed) -> None:
    for number in range(1200):
        feed.add("info", str(number))
    find(view, QToolButton, "log_copy").click()
    assert len(QGuiApplication.clipboard().text().splitlines()) == 1200


def test_the_close_button_asks_to_be_closed(qtbot: QtBot, view: LogView) -> None:
    with qtbot.waitSignal(view.close_asked):
        find(view, QToolButton, "log_close").click()
