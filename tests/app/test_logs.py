"""Log records from any thread to the view: limit, order, and level."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest
from PySide6.QtCore import QtMsgType, qWarning
from pytestqt.qtbot import QtBot

from app import logs
from app.logs import MOST_LINES, LogFeed


@pytest.fixture
def logger() -> logging.Logger:
    made = logging.getLogger("app.test.logs")
    made.setLevel(logging.INFO)
    made.propagate = False
    return made


@pytest.fixture
def feed(logger: logging.Logger) -> Iterator[LogFeed]:
    made = LogFeed()
    logger.addHandler(made)
    yield made
    logger.removeHandler(made)


def test_lines_come_in_their_order_with_the_time_of_day(logger: logging.Logger, feed: LogFeed) -> None:
    logger.info("first")
    logger.warning("second %d", 2)
    lines = feed.take()
    assert [line[10:] for line in lines] == ["first", "warning: second 2"]
    assert all(line[2] == line[5] == ":" for line in lines)


def test_what_was_taken_waits_no_longer(logger: logging.Logger, feed: LogFeed) -> None:
    for number in range(7):
        logger.info("%d", number)
    assert [len(feed.take(5)), len(feed.take(5)), len(feed.take(5))] == [5, 2, 0]


def test_a_flood_keeps_the_newest_lines(logger: logging.Logger, feed: LogFeed) -> None:
    for number in range(MOST_LINES + 100):
        logger.info("%d", number)
    lines = feed.take(10 * MOST_LINES)
    assert (len(lines), lines[-1].endswith(str(MOST_LINES + 99))) == (MOST_LINES, True)


def test_threads_may_log_at_once(logger: logging.Logger, feed: LogFeed) -> None:
    def log() -> None:
        for _ in range(100):
            logger.info("x")

    threads = [threading.Thread(target=log) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(feed.take(1000)) == 400


@pytest.mark.no_qt_log
def test_a_message_of_qt_reaches_the_log(qtbot: QtBot, caplog: pytest.LogCaptureFixture) -> None:
    before = logs.qInstallMessageHandler(logs._from_qt)
    try:
        qWarning("something of Qt's")
    finally:
        logs.qInstallMessageHandler(before)
    assert [(record.name, record.levelname, record.message) for record in caplog.records] == [
        ("qt", "WARNING", "something of Qt's")
    ]


def test_every_kind_of_message_of_qt_has_a_level() -> None:
    kinds = {QtMsgType.QtDebugMsg, QtMsgType.QtInfoMsg, QtMsgType.QtWarningMsg, QtMsgType.QtCriticalMsg}
    assert kinds <= set(logs._LEVELS)
