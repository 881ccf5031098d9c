"""The strip above the page: errors with a remedy, questions with answers."""

from __future__ import annotations

import pytest
from PySide6.QtGui import QAccessible
from PySide6.QtWidgets import QApplication, QLabel, QPushButton, QToolButton
from pytestqt.qtbot import QtBot

from app.frame.error_strip import ErrorStrip
from app.shared.context import Remedy
from app.theme import Theme
from core.errors import BadInput
from tests.app.find import find


@pytest.fixture
def strip(qtbot: QtBot, theme: Theme) -> ErrorStrip:
    made = ErrorStrip(theme)
    qtbot.addWidget(made)
    return made


def buttons(strip: ErrorStrip) -> list[str]:
    """What the buttons say, from left to right."""
    return [button.text() for button in strip.findChildren(QPushButton) if not button.isHidden()]


def test_the_strip_is_hidden_without_a_message(strip: ErrorStrip) -> None:
    assert (strip.isHidden(), strip.message) == (True, "")


def test_an_error_shows_its_sentence_its_hint_and_its_remedy(strip: ErrorStrip) -> None:
    strip.show_error(BadInput("That is wrong.", "Do this."), Remedy("Do it", lambda: None))
    assert (strip.message, buttons(strip)) == ("That is wrong.", ["Do it"])
    assert find(strip, QLabel, "error_hint").text() == "Do this."


def test_the_remedy_acts_and_closes_the_strip(qtbot: QtBot, strip: ErrorStrip) -> None:
    done: list[str] = []
    strip.show_error(BadInput("x"), Remedy("Do it", lambda: done.append("did")))
    with qtbot.waitSignal(strip.closed):
        strip.press_remedy()
    assert (done, strip.isHidden()) == (["did"], True)


def test_a_remedy_may_show_the_next_error(strip: ErrorStrip) -> None:
    strip.show_error(BadInput("first"), Remedy("Try", lambda: strip.show_error(BadInput("second"))))
    strip.press_remedy()
    assert (strip.message, buttons(strip)) == ("second", [])


def test_the_next_error_takes_the_place_of_the_last(strip: ErrorStrip) -> None:
    strip.show_error(BadInput("first"), Remedy("Do it", lambda: None))
    strip.show_error(BadInput("second"))
    assert (strip.message, buttons(strip)) == ("second", [])


def test_the_close_button_closes(strip: ErrorStrip) -> None:
    strip.show_error(BadInput("x"))
    find(strip, QToolButton, "error_close").click()
    assert strip.isHidden()


def test_a_question_has_all_its_answers(strip: ErrorStrip) -> None:
    strip.ask("Really?", "", [Remedy(text, lambda: None) for text in ("Yes", "No", "Later")])
    assert (buttons(strip), strip.asking) == (["Yes", "No", "Later"], True)


def test_an_error_does_not_take_the_place_of_a_question_and_is_not_lost(strip: ErrorStrip) -> None:
    strip.ask("Really?", "", [Remedy("Yes", lambda: None)])
    strip.show_error(BadInput("meanwhile"))
    assert strip.message == "Really?"
    strip.press_remedy()
    assert (strip.message, strip.asking) == ("meanwhile", False)


def test_closing_a_question_gives_no_answer(strip: ErrorStrip) -> None:
    answers: list[str] = []
    strip.ask("Really?", "", [Remedy("Yes", lambda: answers.append("yes"))])
    strip.dismiss()
    assert (answers, strip.asking) == ([], False)


def test_untrusted_text_is_shown_plain_and_limited(strip: ErrorStrip) -> None:
    strip.show_error(BadInput("<b>bold</b> " + 5000 * "x"))
    assert strip.message.startswith("<b>bold</b>")
    assert len(strip.message) < 1000


def test_a_screen_reader_is_told(strip: ErrorStrip, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(QAccessible, "updateAccessibility", lambda event: told.append(event.message()))
    strip.show_error(BadInput("That is wrong.", "Do this."))
    assert told == ["That is wrong. Do this."]


def test_a_long_message_wraps_instead_of_widening_the_window(strip: ErrorStrip) -> None:
    strip.show_error(BadInput("word " * 150, "hint " * 100), Remedy("Do it", lambda: None))
    assert strip.minimumSizeHint().width() < 600
    assert strip.sizeHint().height() < QApplication.primaryScreen().size().height()


def test_option_names_in_a_hint_become_words(strip: ErrorStrip) -> None:
    strip.show_error(BadInput("Out of memory.", "Try --low-memory or a smaller --batch-size."), None)
    assert find(strip, QLabel, "error_hint").text() == "Try low memory or a smaller batch size."
