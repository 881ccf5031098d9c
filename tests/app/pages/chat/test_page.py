"""The chat page: modes, keys, and signals to the window."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtGui import QAction
from PySide6.QtWidgets import QComboBox, QLabel, QListView, QToolButton, QWidget
from pytestqt.qtbot import QtBot

from app.frame.shortcuts_sheet import groups_of
from app.pages.chat.page import ChatPage
from app.pages.chat.single_model import SingleModelChat
from app.pages.chat.top_bar import ONE, TWO
from app.shared.context import Context
from app.widgets.segmented import Segmented
from core.inference.machine import Device, Machine
from core.service.messages import OutputModel
from tests.app.find import find
from tests.app.pages.chat.parts import ROWS, PlayedRuns, answered, asked, bubbles, shown_page
from tests.app.scripted_session import ScriptedCalls


def current(page: ChatPage) -> QWidget:
    found = page._stack.currentWidget()
    assert found is not None
    return found


def mode(page: ChatPage) -> Segmented:
    return find(page, Segmented, "chat_mode")


def test_the_page_begins_with_one_model(page: ChatPage) -> None:
    assert isinstance(current(page), SingleModelChat)
    assert mode(page).value == ONE


def test_comparing_is_a_press_away_and_back(page: ChatPage, calls: ScriptedCalls) -> None:
    asked(page, calls)
    answered(page, calls)
    mode(page).button(TWO).click()
    assert type(current(page)).__name__ == "ComparisonView"
    mode(page).button(ONE).click()
    assert bubbles(page) == ["hello", "hi"]


def test_comparing_gives_the_memory_of_the_one_model_back(
    page: ChatPage, calls: ScriptedCalls, said: list[str]
) -> None:
    asked(page, calls)
    answered(page, calls)
    page.show_mode(TWO)
    assert calls.sessions[0].closed
    assert said == ["tiny-4bit was unloaded. Your next message loads it again."]


def test_after_comparing_the_next_message_loads_the_model_again(page: ChatPage, calls: ScriptedCalls) -> None:
    asked(page, calls)
    answered(page, calls)
    page.show_mode(TWO)
    page.show_mode(ONE)
    asked(page, calls, "more")
    assert len(calls.sessions) == 2
    assert [message["content"] for message in calls.last.request.messages] == ["hello", "hi", "more"]


def test_comparing_waits_for_no_answer_and_ends_none(page: ChatPage, calls: ScriptedCalls, said: list[str]) -> None:
    asked(page, calls)
    page.show_mode(TWO)
    assert (calls.sessions[0].closed, said) == (False, [])
    answered(page, calls)
    page.show_mode(ONE)
    assert bubbles(page) == ["hello", "hi"]


def test_comparing_lets_a_model_load_on(page: ChatPage, calls: ScriptedCalls) -> None:
    page.send("hello")
    page.show_mode(TWO)
    assert not calls.sessions[0].closed


def test_the_comparison_is_made_once(page: ChatPage) -> None:
    page.show_mode(TWO)
    first = current(page)
    page.show_mode(ONE)
    page.show_mode(TWO)
    assert current(page) is first


def test_a_comparison_has_no_drawer(page: ChatPage) -> None:
    page._bar.drawer.click()
    page.show_mode(TWO)
    assert not find(page, QListView, "talks").isVisible()
    assert not find(page, QToolButton, "drawer").isVisible()
    page.show_mode(ONE)
    assert find(page, QListView, "talks").isVisible()


def test_a_model_from_another_page_is_talked_to_alone(page: ChatPage) -> None:
    page.show_mode(TWO)
    page.open_model("/models/other")
    assert isinstance(current(page), SingleModelChat)
    assert find(page, QComboBox, "chat_model").currentText() == "other"


def test_the_keys_of_the_page_are_on_the_sheet(page: ChatPage) -> None:
    ((title, rows),) = groups_of((), {"chat": page})
    keys = {keys for keys, _text in rows}
    assert title == "Chat"
    assert {"Ctrl+N", "Ctrl+Shift+M", "Ctrl+Shift+F", "Ctrl+Shift+H"} <= keys


def test_the_key_for_a_new_conversation_does_not_act_unseen(page: ChatPage, calls: ScriptedCalls) -> None:
    asked(page, calls)
    answered(page, calls)
    page.show_mode(TWO)
    (action,) = (each for each in page.actions() if each.shortcut().toString() == "Ctrl+N")
    action.trigger()
    page.show_mode(ONE)
    assert bubbles(page) == ["hello", "hi"]
    action.trigger()
    assert bubbles(page) == []


def test_a_key_opens_the_list_of_models(page: ChatPage, qtbot: QtBot) -> None:
    (action,) = (each for each in page.actions() if each.shortcut().toString() == "Ctrl+Shift+M")
    assert isinstance(action, QAction)
    action.trigger()
    box = find(page, QComboBox, "chat_model")
    assert box.view().isVisible()
    box.hidePopup()


def test_the_backends_of_the_device_are_shown_before_anything_is_loaded(page: ChatPage, surroundings: Context) -> None:
    cpu = Device("cpu", "cpu", "Test CPU", 0, 0)
    surroundings.draft.set_machine(Machine((cpu,), {}, "cpu", {"cpu": ROWS}))
    box = find(page, QComboBox, "chat_backend_pick")
    assert [box.itemText(place) for place in range(box.count())][1:] == ["Native kernels", "Portable torch"]


def test_clicks_on_other_pages_leave_the_chat_alone(page: ChatPage, surroundings: Context, qtbot: QtBot) -> None:
    """The draft changes with every cell of the map that is painted."""
    with qtbot.assertNotEmitted(page.single.changed):
        surroundings.draft.choose(seed=7)


def test_a_run_that_ends_is_offered(
    qtbot: QtBot, surroundings: Context, calls: ScriptedCalls, runs: PlayedRuns
) -> None:
    page = shown_page(qtbot, surroundings)
    calls.outputs = [OutputModel(Path("/models/a"), "", "W4", "x/y", 0.0)]
    runs.ended.emit(None)
    box = find(page, QComboBox, "chat_model")
    assert box.findData("/models/a") >= 0


def test_the_title_is_the_first_question(page: ChatPage, calls: ScriptedCalls) -> None:
    asked(page, calls)
    title = find(page, QLabel, "conversation_title")
    assert title.text() == "hello"
