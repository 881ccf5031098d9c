"""The composer: Enter, height of the field, and text of the button."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QPlainTextEdit, QPushButton
from pytestqt.qtbot import QtBot

from app.pages.chat.composer import MOST_LINES, Composer
from app.pages.chat.pictures.library import PictureLibrary
from app.theme import Theme
from tests.app.find import find


@pytest.fixture
def composer(theme: Theme, qtbot: QtBot) -> Composer:
    composer = Composer(theme, PictureLibrary())
    qtbot.addWidget(composer)
    composer.resize(400, 60)
    composer.show()
    return composer


@pytest.fixture
def field(composer: Composer) -> QPlainTextEdit:
    return find(composer, QPlainTextEdit, "composer")


@pytest.fixture
def button(composer: Composer) -> QPushButton:
    return find(composer, QPushButton, "send")


def test_enter_sends_and_empties(composer: Composer, field: QPlainTextEdit, qtbot: QtBot) -> None:
    qtbot.keyClicks(field, "hello")
    with qtbot.waitSignal(composer.sent) as caught:
        qtbot.keyClick(field, Qt.Key.Key_Return)
    assert caught.args == ["hello", ()]
    assert composer.text == ""


def test_shift_enter_breaks_the_line(composer: Composer, field: QPlainTextEdit, qtbot: QtBot) -> None:
    qtbot.keyClicks(field, "a")
    with qtbot.assertNotEmitted(composer.sent):
        qtbot.keyClick(field, Qt.Key.Key_Return, Qt.KeyboardModifier.ShiftModifier)
    qtbot.keyClicks(field, "b")
    assert composer.text == "a\nb"


def test_blank_text_is_not_sent(composer: Composer, field: QPlainTextEdit, qtbot: QtBot) -> None:
    qtbot.keyClicks(field, "  ")
    with qtbot.assertNotEmitted(composer.sent):
        qtbot.keyClick(field, Qt.Key.Key_Return)


def test_enter_keeps_the_text_while_an_answer_comes(composer: Composer, field: QPlainTextEdit, qtbot: QtBot) -> None:
    composer.set_state(busy=True, stopping=False, possible=True)
    qtbot.keyClicks(field, "next")
    with qtbot.assertNotEmitted(composer.sent):
        qtbot.keyClick(field, Qt.Key.Key_Return)
    assert composer.text == "next"


def test_the_button_stops_while_an_answer_comes(composer: Composer, button: QPushButton, qtbot: QtBot) -> None:
    composer.set_state(busy=True, stopping=False, possible=True)
    assert button.text() == "Stop"
    with qtbot.waitSignal(composer.stop_asked):
        button.click()


def test_the_button_says_what_a_second_stop_does(composer: Composer, button: QPushButton) -> None:
    composer.set_state(busy=True, stopping=True, possible=True)
    assert button.text() == "Stop now"


def test_nothing_can_be_sent_without_a_model(composer: Composer, button: QPushButton) -> None:
    composer.set_text("hello")
    composer.set_state(busy=False, stopping=False, possible=False)
    assert not button.isEnabled()


def test_the_field_grows_with_its_lines(composer: Composer, field: QPlainTextEdit) -> None:
    one = field.height()
    composer.set_text("a\nb\nc")
    assert field.height() == one + 2 * field.fontMetrics().lineSpacing()


def test_the_field_grows_to_six_lines_and_then_scrolls(composer: Composer, field: QPlainTextEdit) -> None:
    composer.set_text("\n".join("x" * MOST_LINES))
    six = field.height()
    composer.set_text("\n".join("x" * 40))
    assert field.height() == six
    assert field.verticalScrollBar().maximum() > 0


def test_a_long_line_makes_the_field_grow(composer: Composer, field: QPlainTextEdit) -> None:
    one = field.height()
    composer.set_text("word " * 60)
    assert field.height() > one
