"""Message bubbles and their column: content, width, timing, and scroll position."""

from __future__ import annotations

import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QDesktopServices, QGuiApplication, QWheelEvent
from PySide6.QtWidgets import QTextEdit, QToolButton, QWidget
from pytestqt.qtbot import QtBot

from app.pages.chat.message_view import COLUMNS, MessageView
from app.pages.chat.prose_view import ProseView
from app.pages.chat.transcript import Transcript
from app.theme import Theme
from app.widgets.code_view import CodeView
from tests.app.find import find

CODE = "TextStyle:\n\n```python\nfor x in y:  # all\n    print(x)\n```\n\nThat is all."


@pytest.fixture
def view(theme: Theme, qtbot: QtBot) -> MessageView:
    view = MessageView(theme, mine=False)
    qtbot.addWidget(view)
    return view


@pytest.fixture
def transcript(theme: Theme, qtbot: QtBot) -> Transcript:
    transcript = Transcript(theme)
    qtbot.addWidget(transcript)
    transcript.resize(600, 300)
    transcript.show()
    return transcript


def parts(view: MessageView) -> list[QWidget]:
    return [child for child in view.children() if isinstance(child, ProseView | CodeView) and not child.isHidden()]


def button(view: QWidget, name: str) -> QToolButton:
    return find(view, QToolButton, name)


# --- one bubble ---


def test_prose_and_code_are_parts_of_their_own(view: MessageView) -> None:
    view.set_text(CODE)
    assert [type(part) for part in parts(view)] == [ProseView, CodeView, ProseView]


def test_the_button_of_a_block_copies_its_code(view: MessageView) -> None:
    view.set_text(CODE)
    button(view, "copy_code").click()
    assert QGuiApplication.clipboard().text() == "for x in y:  # all\n    print(x)"


def test_the_button_of_a_message_copies_all_as_it_was_written(view: MessageView) -> None:
    view.set_text("**bold** \x07bell")
    button(view, "copy").click()
    assert QGuiApplication.clipboard().text() == "**bold** bell"


def test_pieces_are_shown_together(view: MessageView, qtbot: QtBot) -> None:
    """Twenty times a second at most: one layout for all pieces that came since."""
    with qtbot.waitSignal(view.resized) as caught:
        for piece in ("One ", "two ", "three"):
            view.append(piece)
        assert parts(view) == []
    assert caught.signal_triggered
    (prose,) = parts(view)
    assert isinstance(prose, ProseView)
    assert prose.toPlainText() == "One two three"


def test_the_rest_is_shown_at_the_end(view: MessageView) -> None:
    view.append("One")
    view.finish()
    (prose,) = parts(view)
    assert isinstance(prose, ProseView)
    assert prose.toPlainText() == "One"


def test_parts_that_are_complete_are_left_alone(view: MessageView) -> None:
    view.set_text(CODE)
    before = parts(view)
    view.set_text(CODE + " Really.")
    assert parts(view) == before


def test_what_the_user_wrote_is_shown_as_it_is(theme: Theme, qtbot: QtBot) -> None:
    view = MessageView(theme, mine=True)
    qtbot.addWidget(view)
    view.set_text("# not a title\n* nor a list")
    (prose,) = parts(view)
    assert isinstance(prose, ProseView)
    assert prose.toPlainText() == "# not a title\n* nor a list"


def test_lines_are_no_longer_than_they_can_be_read(view: MessageView) -> None:
    view.set_text("word " * 200)
    view.place(1800)
    (prose,) = parts(view)
    assert prose.width() <= view.fontMetrics().averageCharWidth() * COLUMNS


def test_a_very_long_word_does_not_widen_the_bubble(view: MessageView) -> None:
    view.set_text("x" * 2000)
    height = view.place(400)
    assert height > 5 * view.fontMetrics().height()
    assert all(part.geometry().right() < 400 for part in parts(view))


def test_a_short_question_has_a_small_bubble_on_the_right(theme: Theme, qtbot: QtBot) -> None:
    view = MessageView(theme, mine=True)
    qtbot.addWidget(view)
    view.set_text("Hello")
    view.place(500)
    (prose,) = parts(view)
    assert prose.width() < 100
    assert prose.geometry().right() > 450


def test_what_is_selected_stays_selected_while_text_comes(view: MessageView) -> None:
    view.set_text("One two")
    (prose,) = parts(view)
    assert isinstance(prose, ProseView)
    prose.selectAll()
    view.set_text("One two three")
    assert prose.textCursor().selectedText() == "One two"


def test_a_click_opens_the_browser_for_the_web_alone(view: MessageView, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(QDesktopServices, "openUrl", lambda url: opened.append(url.toString()))
    view.set_text("[a](https://example.org/a)")
    (prose,) = parts(view)
    assert isinstance(prose, ProseView)
    for target in ("https://example.org/a", "file:///etc/passwd", "javascript:1"):
        prose.anchorClicked.emit(target)
    assert opened == ["https://example.org/a"]


def test_a_link_can_be_reached_with_the_keyboard(view: MessageView) -> None:
    view.set_text("[a](https://example.org/a)")
    (prose,) = parts(view)
    assert prose.focusPolicy() == Qt.FocusPolicy.StrongFocus


def test_long_lines_of_code_scroll_inside_their_block(view: MessageView) -> None:
    view.set_text("```\n" + "x" * 500 + "\n```")
    view.resize(400, view.place(400))
    view.show()
    (code,) = parts(view)
    body = find(code, QTextEdit)
    assert body.horizontalScrollBar().maximum() > 0
    assert body.verticalScrollBar().maximum() == 0


# --- the column ---


def test_the_view_follows_what_comes(transcript: Transcript) -> None:
    view = transcript.add(False)
    view.set_text("line\n\n" * 60)
    bar = transcript.verticalScrollBar()
    assert bar.maximum() > 0
    assert bar.value() == bar.maximum()


def test_the_view_stays_where_the_user_reads(transcript: Transcript) -> None:
    view = transcript.add(False)
    view.set_text("line\n\n" * 60)
    transcript.verticalScrollBar().setValue(40)
    view.set_text("line\n\n" * 90)
    assert transcript.verticalScrollBar().value() == 40


def test_only_what_is_below_moves(transcript: Transcript) -> None:
    first, second, third = (transcript.add(False, "text") for _ in range(3))
    before = [view.geometry() for view in (first, second, third)]
    second.set_text("more\n\n" * 5)
    assert first.geometry() == before[0]
    assert second.geometry().top() == before[1].top()
    assert third.geometry().top() > before[2].top()


def test_growing_lays_out_one_bubble(transcript: Transcript, monkeypatch: pytest.MonkeyPatch) -> None:
    views = [transcript.add(False, "text") for _ in range(20)]
    placed: list[MessageView] = []
    real = MessageView.place

    def place(view: MessageView, width: int) -> int:
        placed.append(view)
        return real(view, width)

    monkeypatch.setattr(MessageView, "place", place)
    views[-1].set_text("text and more")
    assert placed == [views[-1]]


def test_the_wheel_over_a_message_is_left_to_the_conversation(transcript: Transcript) -> None:
    view = transcript.add(False, "line\n\n" * 60)
    prose = find(view, ProseView)
    at = QPointF(5, 5)
    event = QWheelEvent(
        at, QPointF(prose.viewport().mapToGlobal(QPoint(5, 5))), QPoint(), QPoint(0, 120),
        Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase, False,
    )  # fmt: skip
    QGuiApplication.sendEvent(prose.viewport(), event)
    assert not event.isAccepted()


def test_another_theme_reaches_every_bubble(transcript: Transcript, theme: Theme) -> None:
    view = transcript.add(False, "[a](https://example.org/a)")
    prose = find(view, ProseView)

    def color() -> str:
        return prose.document().find("a").charFormat().foreground().color().name()

    theme.set_scheme("light")
    before = color()
    theme.set_scheme("dark")
    after = color()
    assert before != after


def test_clearing_leaves_nothing(transcript: Transcript) -> None:
    transcript.add(False, "text")
    transcript.clear()
    assert transcript.messages == []
