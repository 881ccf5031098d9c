"""Saved conversations on the page: saving, listing, opening, renaming, deleting, export and import."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLabel, QLineEdit, QListView, QPlainTextEdit, QPushButton
from pytestqt.qtbot import QtBot

from app.pages.chat.page import ChatPage
from app.shared.context import Context
from core.home import home
from core.inference.generation.reply import ChatAnswer, Statistics
from tests.app.find import find
from tests.app.pages.chat.parts import answered, asked, bubbles, button, shown_page
from tests.app.reading_aloud import unnamed, unreachable
from tests.app.scripted_session import ScriptedCalls


def files() -> list[Path]:
    return sorted((home() / "conversations").glob("*.json"))


def names(page: ChatPage) -> list[str]:
    model = find(page, QListView, "talks").model()
    return [model.index(row, 0).data() for row in range(model.rowCount())]


def settle(page: ChatPage, qtbot: QtBot) -> None:
    """Until everything is on the disk and told."""
    page.store.wait()
    qtbot.wait(1)


def opened_row(page: ChatPage, row: int, qtbot: QtBot) -> None:
    view = find(page, QListView, "talks")
    view.clicked.emit(view.model().index(row, 0))
    settle(page, qtbot)


@pytest.fixture
def talked(page: ChatPage, calls: ScriptedCalls, qtbot: QtBot) -> ChatPage:
    """Two conversations: `hello`, and `second`, which is shown; the drawer is open."""
    page._bar.drawer.setChecked(True)
    asked(page, calls)
    answered(page, calls)
    page.new_conversation()
    page.send("second")
    answered(page, calls, "yes?")
    settle(page, qtbot)
    return page


def test_a_conversation_is_saved_when_its_answer_has_come(page: ChatPage, calls: ScriptedCalls, qtbot: QtBot) -> None:
    asked(page, calls)
    answered(page, calls)
    settle(page, qtbot)
    (path,) = files()
    texts = [message["text"] for message in json.loads(path.read_text(encoding="utf-8"))["messages"]]
    assert texts == ["hello", "hi"]


def test_what_was_said_before_a_crash_is_on_the_disk(page: ChatPage, calls: ScriptedCalls, qtbot: QtBot) -> None:
    asked(page, calls)
    calls.last.say("Half an")
    page.single.answering.modified.emit()
    settle(page, qtbot)
    assert "Half an" in files()[0].read_text(encoding="utf-8")


def test_an_empty_conversation_is_not_saved(page: ChatPage, qtbot: QtBot) -> None:
    page.new_conversation()
    settle(page, qtbot)
    assert files() == []


def test_closing_the_window_saves(page: ChatPage, calls: ScriptedCalls, qtbot: QtBot) -> None:
    asked(page, calls)
    calls.last.say("Half an")
    page.single.answering.modified.emit()
    page.hide()
    settle(page, qtbot)
    assert len(files()) == 1


def test_the_drawer_lists_the_newest_first(talked: ChatPage) -> None:
    assert names(talked) == ["second", "hello"]


def test_a_saved_conversation_can_be_opened_and_goes_on(talked: ChatPage, calls: ScriptedCalls, qtbot: QtBot) -> None:
    opened_row(talked, 1, qtbot)
    assert bubbles(talked) == ["hello", "hi"]
    talked.send("more")
    assert [message["content"] for message in calls.last.request.messages] == ["hello", "hi", "more"]


def test_the_next_window_finds_them(talked: ChatPage, surroundings: Context, qtbot: QtBot) -> None:
    talked.hide()
    other = shown_page(qtbot, surroundings)
    settle(other, qtbot)
    assert names(other) == ["second", "hello"]


def test_the_system_prompt_comes_with_its_conversation(page: ChatPage, calls: ScriptedCalls, qtbot: QtBot) -> None:
    system = find(page, QPlainTextEdit, "system_prompt")
    system.setPlainText("Be brief.")
    asked(page, calls)
    answered(page, calls)
    page.new_conversation()
    system.setPlainText("Be long.")
    page.send("second")
    answered(page, calls)
    settle(page, qtbot)
    opened_row(page, 1, qtbot)
    assert system.toPlainText() == "Be brief."


def test_opening_another_one_ends_the_answer_and_keeps_the_model(
    talked: ChatPage, calls: ScriptedCalls, qtbot: QtBot
) -> None:
    talked.send("more")
    calls.last.say("Half")
    coming = calls.last
    opened_row(talked, 1, qtbot)
    assert coming.stopped
    assert not calls.sessions[0].closed
    coming.say(" of it")
    coming.succeed(ChatAnswer(statistics=Statistics(ended_by="stopped")))
    assert bubbles(talked) == ["hello", "hi"]
    opened_row(talked, 0, qtbot)
    assert bubbles(talked)[-1] == "Half"


def test_back_before_the_other_one_was_read_keeps_the_answer(
    talked: ChatPage, calls: ScriptedCalls, qtbot: QtBot
) -> None:
    talked.send("more")
    calls.last.say("Half")
    view = find(talked, QListView, "talks")
    for row in (1, 0):
        view.clicked.emit(view.model().index(row, 0))
    settle(talked, qtbot)
    assert (bubbles(talked)[-1], calls.last.stopped) == ("Half", False)


def test_of_two_that_are_asked_for_the_later_is_shown(talked: ChatPage, calls: ScriptedCalls, qtbot: QtBot) -> None:
    talked.new_conversation()
    view = find(talked, QListView, "talks")
    for row in (1, 0):
        view.clicked.emit(view.model().index(row, 0))
    settle(talked, qtbot)
    assert bubbles(talked)[0] == "second"


def test_a_question_meanwhile_waits_for_the_end_of_the_answer(
    talked: ChatPage, calls: ScriptedCalls, qtbot: QtBot
) -> None:
    talked.send("more")
    coming = calls.last
    opened_row(talked, 1, qtbot)
    talked.send("are you there?")
    assert calls.last is coming
    coming.succeed(ChatAnswer(statistics=Statistics(ended_by="stopped")))
    assert calls.last.request.messages[-1]["content"] == "are you there?"


def test_searching_finds_what_was_said(talked: ChatPage) -> None:
    find(talked, QLineEdit, "conversation_search").setText("yes?")
    assert names(talked) == ["second"]
    find(talked, QLineEdit, "conversation_search").setText("nobody said this")
    assert names(talked) == []
    assert "No matching" in find(talked, QLabel, "conversations_empty").text()


def test_enter_opens_the_first_that_was_found(talked: ChatPage, qtbot: QtBot) -> None:
    search = find(talked, QLineEdit, "conversation_search")
    search.setText("hello")
    qtbot.keyClick(search, Qt.Key.Key_Return)
    settle(talked, qtbot)
    assert bubbles(talked) == ["hello", "hi"]


def test_f2_changes_the_name_in_its_place(talked: ChatPage, qtbot: QtBot) -> None:
    view = find(talked, QListView, "talks")
    view.setFocus()
    qtbot.keyClick(view, Qt.Key.Key_F2)
    field = find(view, QLineEdit)
    field.setText("Greetings")
    qtbot.keyClick(field, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: names(talked)[0] == "Greetings")


def test_renaming_in_the_list_renames_the_page(talked: ChatPage, qtbot: QtBot) -> None:
    model = find(talked, QListView, "talks").model()
    model.setData(model.index(0, 0), "Greetings", Qt.ItemDataRole.EditRole)
    settle(talked, qtbot)
    assert names(talked)[0] == "Greetings"
    assert find(talked, QLabel, "conversation_title").text() == "Greetings"


def test_a_renamed_conversation_keeps_its_name_when_it_goes_on(
    talked: ChatPage, calls: ScriptedCalls, qtbot: QtBot
) -> None:
    model = find(talked, QListView, "talks").model()
    model.setData(model.index(0, 0), "Greetings", Qt.ItemDataRole.EditRole)
    settle(talked, qtbot)
    talked.send("more")
    answered(talked, calls)
    settle(talked, qtbot)
    assert names(talked)[0] == "Greetings"


def test_a_deleted_conversation_leaves_and_can_come_back(talked: ChatPage, qtbot: QtBot) -> None:
    button(talked, "delete_talk").click()
    settle(talked, qtbot)
    assert names(talked) == ["hello"]
    assert bubbles(talked) == []
    button(talked, "undo_delete").click()
    settle(talked, qtbot)
    assert names(talked) == ["second", "hello"]
    assert len(files()) == 2


def test_del_deletes_what_is_picked(talked: ChatPage, qtbot: QtBot) -> None:
    view = find(talked, QListView, "talks")
    view.setFocus()
    qtbot.keyClick(view, Qt.Key.Key_Delete)
    settle(talked, qtbot)
    assert len(files()) == 1


def test_deleting_while_an_answer_comes_does_not_bring_it_back(
    talked: ChatPage, calls: ScriptedCalls, qtbot: QtBot
) -> None:
    talked.send("more")
    calls.last.say("Half")
    button(talked, "delete_talk").click()
    settle(talked, qtbot)
    assert len(files()) == 1
    assert names(talked) == ["hello"]


def test_a_file_that_cannot_be_read_is_told(page: ChatPage, qtbot: QtBot) -> None:
    folder = home() / "conversations"
    folder.mkdir(parents=True)
    (folder / "torn.json").write_text('{"kind": "bitwr')
    page.store.reload()
    settle(page, qtbot)
    broken = find(page, QLabel, "conversations_broken")
    assert "One conversation cannot be read" in broken.text()
    assert "torn.json" in broken.toolTip()
    assert (folder / "torn.json").exists()


def test_a_disk_that_cannot_be_written_is_told_once(
    page: ChatPage, calls: ScriptedCalls, qtbot: QtBot, reports: list[Any]
) -> None:
    home().mkdir(parents=True, exist_ok=True)
    (home() / "conversations").write_text("a file stands in the way")
    asked(page, calls)
    for text in ("one", "two"):
        answered(page, calls, text)
        settle(page, qtbot)
        page.send("more")
    assert len(reports) == 1
    assert "cannot be saved" in reports[0][0].message
    assert bubbles(page)[:2] == ["hello", "one"]


# --- in and out ---


def test_export_as_json_holds_all_branches(
    talked: ChatPage, calls: ScriptedCalls, tmp_path: Path, qtbot: QtBot
) -> None:
    talked.single.regenerate()
    answered(talked, calls, "again?")
    talked.save_to(str(tmp_path / "talk.json"))
    settle(talked, qtbot)
    value = json.loads((tmp_path / "talk.json").read_text(encoding="utf-8"))
    assert [message["text"] for message in value["messages"]] == ["second", "yes?", "again?"]


def test_an_exported_conversation_can_be_imported(talked: ChatPage, tmp_path: Path, qtbot: QtBot) -> None:
    talked.save_to(str(tmp_path / "talk.json"))
    talked.import_from(str(tmp_path / "talk.json"))
    settle(talked, qtbot)
    settle(talked, qtbot)
    assert bubbles(talked) == ["second", "yes?"]
    assert len(files()) == 3


def test_a_file_without_a_conversation_is_told(
    talked: ChatPage, tmp_path: Path, reports: list[Any], qtbot: QtBot
) -> None:
    (tmp_path / "other.json").write_text('{"bits": 4}')
    talked.import_from(str(tmp_path / "other.json"))
    settle(talked, qtbot)
    assert "no conversation" in reports[-1][0].message
    assert reports[-1][1].text == "Choose another file"
    assert bubbles(talked) == ["second", "yes?"]


# --- the drawer itself ---


def test_the_drawer_is_closed_where_there_is_little_room(page: ChatPage) -> None:
    assert not page._drawer.isVisible()


def test_the_drawer_is_open_where_there_is_room(surroundings: Context, qtbot: QtBot) -> None:
    page = ChatPage(surroundings)
    qtbot.addWidget(page)
    page.resize(1600, 900)
    page.show()
    assert page._drawer.isVisible()


def test_the_drawer_stays_as_it_was_left(page: ChatPage, surroundings: Context, qtbot: QtBot) -> None:
    page._bar.drawer.click()
    page.hide()
    assert shown_page(qtbot, surroundings)._drawer.isVisible()


def test_the_page_with_its_drawer_fits_the_smallest_window(talked: ChatPage) -> None:
    assert talked._drawer.isVisible()
    assert talked.minimumSizeHint().width() <= 880


def test_everything_in_the_drawer_has_a_name_and_is_reached_by_tab(talked: ChatPage) -> None:
    button(talked, "delete_talk").click()
    assert unnamed(talked._drawer) == []
    assert unreachable(talked._drawer) == []


def test_what_is_shown_is_marked_in_the_list(talked: ChatPage, qtbot: QtBot) -> None:
    assert find(talked, QListView, "talks").currentIndex().row() == 0
    talked.new_conversation()
    assert not find(talked, QListView, "talks").currentIndex().isValid()


def test_the_first_conversation_is_marked_as_soon_as_it_is_there(
    page: ChatPage, calls: ScriptedCalls, qtbot: QtBot
) -> None:
    asked(page, calls)
    answered(page, calls)
    settle(page, qtbot)
    assert find(page, QListView, "talks").currentIndex().row() == 0


def test_the_key_for_searching_opens_the_drawer(page: ChatPage) -> None:
    page.search()
    assert page._drawer.isVisible()
    assert not find(page, QPushButton, "rename_talk").isEnabled()
