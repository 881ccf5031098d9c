"""The main window: order of creation, messages between pages and frame, drops, keys, and closing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PySide6.QtCore import QMimeData, QPointF, Qt, QUrl
from PySide6.QtGui import QDragEnterEvent, QDropEvent, QGuiApplication
from PySide6.QtWidgets import QLabel, QPushButton, QToolButton, QWidget
from pytestqt.qtbot import QtBot

from app.frame.main_window import MainWindow
from app.frame.page_stack import PageEntry
from app.logs import LogFeed
from app.shared.context import Context, Remedy
from app.shared.models.opened import OpenedModel
from app.state import State
from core.bitsmap import BitsMap
from core.errors import BadInput, Cancelled
from core.events import Done, Failed
from tests.app import frame_pages
from tests.app.find import find
from tests.app.frame_pages import SmallPage
from tests.app.steered_runs import SteeredRuns
from tests.app.surroundings import surroundings_with

MakeWindow = Callable[..., MainWindow]


@pytest.fixture
def make_window(qtbot: QtBot, context: Context, runs: SteeredRuns) -> MakeWindow:
    """Windows with small pages and a run that the test steers; everything else is real."""

    def make(pages: tuple[PageEntry, ...] = frame_pages.PAGES, *, shown: bool = True) -> MainWindow:
        def surroundings(window: MainWindow) -> Context:
            return surroundings_with(
                context, runs=runs, report=window.report, show_message=window.show_message, go=window.go
            )

        window = MainWindow(context.theme, context.state, LogFeed(), pages=pages, make_context=surroundings)
        qtbot.addWidget(window, before_close_func=lambda window: window.leave_now())
        if shown:
            with qtbot.waitSignal(window.stack.complete):
                window.show()
        return window

    return make


@pytest.fixture
def window(make_window: MakeWindow) -> MainWindow:
    return make_window()


def page_of(window: MainWindow, page: str) -> SmallPage:
    found = window.stack.page(page)
    assert isinstance(found, SmallPage)
    return found


# --- What is made when ---


def test_nothing_is_made_before_the_first_paint(make_window: MakeWindow) -> None:
    window = make_window(shown=False)
    assert (window.context, window.stack.pages) == (None, {})


def test_after_the_first_paint_every_page_is_made(window: MainWindow) -> None:
    assert list(window.stack.pages) == ["model", "recipe", "layers", "run", "chat"]


def test_the_page_of_the_last_time_is_made_first(make_window: MakeWindow, context: Context) -> None:
    context.state.page = "layers"
    window = make_window()
    assert (window.stack.current, next(iter(window.stack.pages))) == ("layers", "layers")


def test_a_page_that_is_no_more_is_not_asked_for(make_window: MakeWindow, context: Context) -> None:
    context.state.page = "telegraph"
    assert make_window().stack.current == "model"


def test_a_page_that_cannot_be_made_leaves_the_others_alone(
    make_window: MakeWindow, caplog: pytest.LogCaptureFixture
) -> None:
    window = make_window(frame_pages.BROKEN)
    assert window.strip.message == "Something went wrong inside Bitwright."
    assert isinstance(window.stack.page("chat"), SmallPage)
    assert "this page is broken" in caplog.text


def test_a_run_from_before_is_found_and_shown(make_window: MakeWindow, runs: SteeredRuns) -> None:
    runs.goes_on_from_before = True
    window = make_window()
    assert (window.stack.current, window.job_bar.action) == ("run", "pause")


# --- What pages ask of the frame ---


def test_a_page_reports_an_error_with_a_remedy(window: MainWindow) -> None:
    done: list[str] = []
    context = page_of(window, "model").context
    context.report(BadInput("That is wrong.", "Do this."), Remedy("Do it", lambda: done.append("did")))
    assert window.strip.message == "That is wrong."
    window.strip.press_remedy()
    assert done == ["did"]


def test_a_cancellation_is_no_error(window: MainWindow) -> None:
    window.report(Cancelled("Stopped."))
    assert window.strip.isHidden()


def test_a_page_sends_to_another(window: MainWindow) -> None:
    page_of(window, "model").context.go("layers")
    assert window.stack.current == "layers"
    assert find(window.rail, QToolButton, "rail_layers").isChecked()


def test_a_page_that_has_something_to_say_gets_a_dot(window: MainWindow) -> None:
    page = page_of(window, "chat")
    page.has_news = True
    page.dot_changed.emit()
    assert find(window.rail, QToolButton, "rail_chat").accessibleDescription() == "Has updates"


def test_the_next_button_of_a_page_has_the_color_of_the_first(window: MainWindow) -> None:
    button = find(page_of(window, "model"), QPushButton, "next")
    assert button.grab().toImage().pixelColor(8, button.height() // 2) == window.theme.color("accent")


def test_an_error_of_a_call_that_nobody_took_is_shown(window: MainWindow, context: Context) -> None:
    context.calls.unhandled.emit(BadInput("The Hub did not answer."))
    assert window.strip.message == "The Hub did not answer."


def test_details_of_a_failure_can_be_copied(window: MainWindow) -> None:
    window.show_failure(BadInput("Something went wrong."), "Traceback of ours")
    window.strip.press_remedy()
    assert QGuiApplication.clipboard().text() == "Traceback of ours"


def test_a_failure_is_not_told_twice_once_the_run_page_is_in_front(window: MainWindow, runs: SteeredRuns) -> None:
    window.go("model")
    runs.begin()
    runs.end(Failed("disk-full", "The disk is full.", "", "write", before_tuning=False))
    assert window.strip.message == "The disk is full."
    window.go("run")
    assert window.strip.message == ""


def test_another_error_stays_when_the_run_page_is_shown(window: MainWindow, runs: SteeredRuns) -> None:
    window.go("model")
    runs.begin()
    runs.end(Failed("disk-full", "The disk is full.", "", "write", before_tuning=False))
    window.report(BadInput("Something else."))
    window.go("run")
    assert window.strip.message == "Something else."


def test_talking_to_the_result_opens_it_on_the_chat_page(
    window: MainWindow, runs: SteeredRuns, context: Context, opened: OpenedModel
) -> None:
    context.draft.choose(model=opened)
    spec = context.draft.spec()
    runs.begin(spec)
    runs.end(Done(spec.output, 1.0, {}))
    window.do_primary()
    assert window.stack.current == "chat"
    assert page_of(window, "chat").asked == [("model", spec.output)]


# --- Opening things ---


def test_a_model_given_at_the_start_waits_for_its_page(make_window: MakeWindow, qtbot: QtBot) -> None:
    window = make_window(shown=False)
    window.open_words("demo")
    with qtbot.waitSignal(window.stack.complete):
        window.show()
    assert page_of(window, "model").asked == [("model", "demo")]


def test_another_start_brings_its_model(window: MainWindow) -> None:
    window.go("chat")
    window.answer_start("Qwen/Qwen3-0.6B")
    assert (window.stack.current, page_of(window, "model").asked) == ("model", [("model", "Qwen/Qwen3-0.6B")])


def drop(window: QWidget, mime: QMimeData) -> bool:
    """Drag `mime` over the window and let it go; whether the window took it."""
    action, button, none = Qt.DropAction.CopyAction, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    entered = QDragEnterEvent(QPointF(5, 5).toPoint(), action, mime, button, none)
    entered.ignore()
    QGuiApplication.sendEvent(window, entered)
    if entered.isAccepted():
        QGuiApplication.sendEvent(window, QDropEvent(QPointF(5, 5), action, mime, button, none))
    return entered.isAccepted()


def test_a_dropped_folder_is_opened(window: MainWindow, tmp_path: Path) -> None:
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(tmp_path))])
    assert drop(window, mime)
    assert page_of(window, "model").asked == [("model", str(tmp_path))]


def test_a_dropped_bits_map_goes_to_the_layers(window: MainWindow, tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    BitsMap().save(path)
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(path))])
    drop(window, mime)
    assert (window.stack.current, page_of(window, "layers").asked) == ("layers", [("file", str(path))])


def test_a_dropped_holiday_picture_is_refused_in_words(window: MainWindow, tmp_path: Path) -> None:
    path = tmp_path / "holiday.jpg"
    path.touch()
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(path))])
    drop(window, mime)
    assert "holiday.jpg" in window.strip.message


def test_plain_text_is_not_taken(window: MainWindow) -> None:
    mime = QMimeData()
    mime.setText("just some words")
    assert not drop(window, mime)


def test_a_field_leaves_drops_to_the_window(window: MainWindow) -> None:
    assert not page_of(window, "model").field.acceptDrops()


# --- Keys ---


def press(qtbot: QtBot, window: MainWindow, key: Qt.Key, modifier: Qt.KeyboardModifier) -> None:
    window.activateWindow()
    qtbot.waitActive(window)
    qtbot.keyClick(window, key, modifier)


def test_ctrl_and_a_number_shows_a_page(qtbot: QtBot, window: MainWindow) -> None:
    press(qtbot, window, Qt.Key.Key_3, Qt.KeyboardModifier.ControlModifier)
    assert window.stack.current == "layers"


def test_a_question_mark_shows_the_keys_and_esc_closes_them(qtbot: QtBot, window: MainWindow) -> None:
    press(qtbot, window, Qt.Key.Key_F1, Qt.KeyboardModifier.NoModifier)
    sheet = find(window, QWidget, "shortcuts_sheet")
    assert sheet.isVisible()
    qtbot.keyClick(sheet, Qt.Key.Key_Escape)
    assert not sheet.isVisible()


def test_a_question_mark_in_a_field_is_a_letter(qtbot: QtBot, window: MainWindow) -> None:
    window.activateWindow()
    qtbot.waitActive(window)
    field = page_of(window, "model").field
    field.setFocus()
    qtbot.keyClicks(field, "why?")
    assert (field.text(), window.findChild(QWidget, "shortcuts_sheet")) == ("why?", None)


def test_esc_closes_the_message_then_the_log(qtbot: QtBot, window: MainWindow) -> None:
    window.report(BadInput("x"))
    window._show_log(True)
    press(qtbot, window, Qt.Key.Key_Escape, Qt.KeyboardModifier.NoModifier)
    assert (window.strip.isVisible(), window.log.isVisible()) == (False, True)
    qtbot.keyClick(window, Qt.Key.Key_Escape)
    assert not window.log.isVisible()


def test_ctrl_enter_starts_the_run(
    qtbot: QtBot, window: MainWindow, context: Context, runs: SteeredRuns, opened: OpenedModel
) -> None:
    context.draft.choose(model=opened)
    press(qtbot, window, Qt.Key.Key_Return, Qt.KeyboardModifier.ControlModifier)
    assert runs.asked[-1] == f"start {opened.name}"


def test_ctrl_enter_without_a_model_says_why_not(qtbot: QtBot, window: MainWindow) -> None:
    press(qtbot, window, Qt.Key.Key_Return, Qt.KeyboardModifier.ControlModifier)
    assert find(window.status, QLabel, "status_text").text() == "Select a model"


# --- Leaving ---


def test_the_window_remembers_its_place_and_page(
    qtbot: QtBot, window: MainWindow, context: Context, tmp_path: Path
) -> None:
    window.resize(900, 640)
    window.go("recipe")
    window.close()
    found = State(tmp_path / "window.ini")
    assert (found.page, found.geometry.isEmpty()) == ("recipe", False)


def test_without_a_run_it_closes_at_once(qtbot: QtBot, window: MainWindow) -> None:
    with qtbot.waitSignal(window.left):
        window.close()
    assert not window.isVisible()


def answer(window: MainWindow, text: str) -> None:
    """Press one of the answers in the strip."""
    next(button for button in window.strip.findChildren(QPushButton) if button.text() == text).click()


def test_during_a_run_it_asks_and_stays(window: MainWindow, runs: SteeredRuns) -> None:
    runs.begin()
    window.close()
    assert (window.isVisible(), window.strip.message) == (True, "A run is active.")
    answer(window, "Keep window open")
    assert (window.isVisible(), window.strip.isVisible(), runs.asked) == (True, False, ["adopt"])


def test_the_run_may_go_on_without_the_window(qtbot: QtBot, window: MainWindow, runs: SteeredRuns) -> None:
    runs.begin()
    window.close()
    with qtbot.waitSignal(window.left):
        answer(window, "Keep running")
    assert runs.asked == ["adopt", "detach", "close"]


def test_a_run_that_is_stopped_is_waited_for(qtbot: QtBot, window: MainWindow, runs: SteeredRuns) -> None:
    runs.begin()
    window.close()
    answer(window, "Cancel run")
    assert (window.isVisible(), runs.asked) == (True, ["adopt", "cancel"])
    with qtbot.waitSignal(window.left):
        runs.end(Done("/out", 1.0, {}))


def test_a_run_that_does_not_stop_is_not_waited_for_for_ever(
    qtbot: QtBot, window: MainWindow, runs: SteeredRuns
) -> None:
    runs.begin()
    window.close()
    with qtbot.waitSignal(window.left, timeout=10_000):
        answer(window, "Cancel run")
    assert runs.asked[-2:] == ["cancel", "close"]


def test_a_run_that_ends_while_it_is_asked_about_ends_the_question(window: MainWindow, runs: SteeredRuns) -> None:
    runs.begin()
    window.close()
    runs.end(Done("/out", 1.0, {}))
    assert (window.isVisible(), window.strip.isVisible()) == (True, False)


def test_after_staying_it_asks_again(window: MainWindow, runs: SteeredRuns) -> None:
    runs.begin()
    for _ in range(2):
        window.close()
        assert window.strip.asking
        answer(window, "Keep window open")


def test_the_end_of_the_session_does_not_ask(qtbot: QtBot, window: MainWindow, runs: SteeredRuns) -> None:
    runs.begin()
    with qtbot.waitSignal(window.left):
        window.leave_now()
    assert "detach" in runs.asked


# --- Room ---


@pytest.mark.parametrize("size", [(1024, 700), (1920, 1080)])
def test_it_takes_the_size_it_is_given(window: MainWindow, size: tuple[int, int]) -> None:
    window.resize(*size)
    assert (window.width(), window.height()) == size
