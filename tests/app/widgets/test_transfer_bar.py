"""Progress of a slow thing: a bar, figures or news, and a way out."""

from __future__ import annotations

import pytest
from PySide6.QtWidgets import QProgressBar
from pytestqt.qtbot import QtBot

from app.theme import Theme
from app.widgets.elided_label import ElidedLabel
from app.widgets.transfer_bar import TransferBar
from core.events import Log, Progress, Stage
from tests.app.find import find


class Clock:
    """A time that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def bar(qtbot: QtBot, theme: Theme, clock: Clock) -> TransferBar:
    made = TransferBar(theme, stages={"analyse": "Measuring"}, clock=clock)
    qtbot.addWidget(made)
    made.resize(400, 100)
    made.show()
    return made


def figures(bar: TransferBar) -> str:
    return find(bar, ElidedLabel, "figures").text()


def progress(bar: TransferBar) -> QProgressBar:
    return find(bar, QProgressBar)


def test_until_something_is_known_the_bar_only_moves(bar: TransferBar) -> None:
    bar.begin("Opening x", "Reading")
    assert progress(bar).maximum() == 0
    assert progress(bar).accessibleName() == "Opening x"
    assert figures(bar) == "Reading"


def test_a_transfer_shows_amount_rate_and_time_left(bar: TransferBar, clock: Clock) -> None:
    bar.begin("Downloading x", total=2_000_000_000)
    clock.now = 1005.0
    bar.follow(Progress(0.1, 40.0, 50.0, time=1005.0))
    assert progress(bar).value() == 100
    assert figures(bar) == "200 MB of 2 GB, 40 MB/s, 40 to 50 s left"


def test_news_show_where_there_are_no_figures(bar: TransferBar) -> None:
    bar.begin("Opening x.gguf")
    bar.follow(Log("info", "Importing x.gguf, 3 of 30."))
    bar.follow(Progress(0.5, -1, -1))
    assert figures(bar) == "50%. Importing x.gguf, 3 of 30."
    assert progress(bar).value() == 500


def test_impossible_shares_stay_on_the_bar(bar: TransferBar) -> None:
    bar.begin("Opening x")
    for fraction, value in ((1.5, 1000), (-2.0, 0)):
        bar.follow(Progress(fraction, -1, -1))
        assert progress(bar).value() == value


def test_a_stage_with_a_title_begins_anew(bar: TransferBar) -> None:
    bar.begin("Opening the model")
    bar.follow(Progress(0.5, -1, -1))
    bar.follow(Stage("load"))
    assert progress(bar).value() == 500
    bar.follow(Stage("analyse"))
    assert progress(bar).maximum() == 0
    assert progress(bar).accessibleName() == "Measuring"
    assert figures(bar) == ""


def test_silence_is_told_without_any_event(bar: TransferBar, clock: Clock, qtbot: QtBot) -> None:
    bar.begin("Downloading x", total=2_000_000_000)
    bar.follow(Progress(0.1, 40.0, 50.0, time=1000.0))
    clock.now = 1030.0
    qtbot.waitUntil(lambda: "no data for 30 s" in figures(bar))


def test_the_button_asks_for_the_end(bar: TransferBar, qtbot: QtBot) -> None:
    bar.begin("Opening x")
    with qtbot.waitSignal(bar.cancelled):
        bar.cancel.click()


def test_at_the_end_the_bar_rests(bar: TransferBar) -> None:
    bar.begin("Opening x")
    bar.end()
    assert (progress(bar).maximum(), progress(bar).value()) == (1000, 0)
