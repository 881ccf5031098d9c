"""Pictures on the chat page: attaching, sending, editing, and models that do not read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from PySide6.QtGui import QDragEnterEvent, QDropEvent, QGuiApplication
from PySide6.QtWidgets import QApplication, QPlainTextEdit, QToolButton

from app.pages.chat.composer import Composer
from app.pages.chat.conversations.picture_files import display_name
from app.pages.chat.page import ChatPage
from app.pages.chat.pictures.attachments import Attachments
from app.pages.chat.prose_view import ProseView
from app.pages.chat.top_bar import ONE, TWO
from core.home import home
from core.service.messages import CountTokens, Say
from tests.app.find import find
from tests.app.pages.chat.parts import answered, asked, bubbles, button, label_of, last_bubble
from tests.app.pages.chat.pictures.samples import image, picture, settle
from tests.app.scripted_session import OPENED, ScriptedCalls

READS = ("text", "pictures")


def composer_of(page: ChatPage) -> Composer:
    return page.single.chat_view.composer


def attach(page: ChatPage, *sources: Any) -> None:
    """Attach pictures and wait until they are copied."""
    composer_of(page).attach(sources)
    settle(page.single.chat_view.pictures)


def load(page: ChatPage, calls: ScriptedCalls, **changes: Any) -> None:
    """Load a model that reads pictures, unless told otherwise."""
    button(page, "load").click()
    calls.last.succeed(OPENED, **{"reads": READS, **changes})


def send(page: ChatPage, text: str = "") -> None:
    """Send what is attached with a text."""
    composer_of(page).set_text(text)
    button(page, "send").click()


def sent(calls: ScriptedCalls) -> list[Any]:
    """The messages of the last request, with the names of their pictures."""
    assert isinstance(calls.last.request, Say | CountTokens)
    return [
        (message["content"], [display_name(path) for path in message.get("pictures", ())])
        for message in calls.last.request.messages
    ]


@pytest.fixture
def cat(tmp_path: Path) -> str:
    return picture(tmp_path, "cat.png")


@pytest.fixture
def seen(page: ChatPage, calls: ScriptedCalls, cat: str) -> ChatPage:
    """A page with an answered question about a picture."""
    load(page, calls)
    attach(page, cat)
    send(page, "What is this?")
    answered(page, calls, "A cat.")
    return page


# --- sending ---


def test_a_picture_is_sent_before_the_text(page: ChatPage, calls: ScriptedCalls, cat: str) -> None:
    load(page, calls)
    attach(page, cat)
    send(page, "What is this?")
    assert sent(calls) == [("What is this?", ["cat.png"])]


def test_a_picture_is_sent_alone(page: ChatPage, calls: ScriptedCalls, cat: str) -> None:
    load(page, calls)
    attach(page, cat)
    send(page)
    assert sent(calls) == [("", ["cat.png"])]


def test_what_was_sent_leaves_the_composer(seen: ChatPage) -> None:
    assert (composer_of(seen).text, composer_of(seen).pictures) == ("", ())


def test_a_picture_that_is_still_copied_is_waited_for(page: ChatPage, calls: ScriptedCalls, cat: str) -> None:
    load(page, calls)
    composer_of(page).set_text("What is this?")
    composer_of(page).attach([cat])
    assert not button(page, "send").isEnabled()
    settle(page.single.chat_view.pictures)
    assert button(page, "send").isEnabled()


def test_a_picture_is_sent_even_if_its_file_is_gone(page: ChatPage, calls: ScriptedCalls, cat: str) -> None:
    load(page, calls)
    attach(page, cat)
    Path(cat).unlink()
    send(page, "What is this?")
    assert sent(calls) == [("What is this?", ["cat.png"])]


def test_the_tokens_of_pictures_are_counted(seen: ChatPage, calls: ScriptedCalls) -> None:
    seen.single.pick("/models/other")
    calls.last.succeed(OPENED, label="other", reads=READS)
    assert isinstance(calls.last.request, CountTokens)
    assert sent(calls)[0] == ("What is this?", ["cat.png"])


def test_a_saved_conversation_finds_its_pictures(seen: ChatPage) -> None:
    seen.store.wait()
    (path,) = (home() / "conversations").glob("*.json")
    (stored,) = json.loads(path.read_text(encoding="utf-8"))["messages"][0]["pictures"]
    assert (path.parent / "pictures" / stored).is_file()


def test_an_exported_conversation_contains_its_pictures(seen: ChatPage, tmp_path: Path) -> None:
    seen.save_to(str(tmp_path / "talk.json"))
    seen.store.wait()
    (uri,) = json.loads((tmp_path / "talk.json").read_text(encoding="utf-8"))["messages"][0]["pictures"]
    assert uri.startswith("data:image/png;name=cat.png;base64,")


# --- attaching ---


def test_a_file_that_is_no_picture_is_told_at_once(page: ChatPage, calls: ScriptedCalls, tmp_path: Path) -> None:
    load(page, calls)
    (tmp_path / "notes.png").write_text("text")
    attach(page, str(tmp_path / "notes.png"))
    assert label_of(page, "notice").startswith("notes.png is not a picture that can be opened.")
    button(page, "notice_button").click()
    assert label_of(page, "notice") == ""


def test_a_bad_file_among_good_ones_is_still_told(
    page: ChatPage, calls: ScriptedCalls, tmp_path: Path, cat: str
) -> None:
    load(page, calls)
    (tmp_path / "notes.png").write_text("text")
    attach(page, str(tmp_path / "notes.png"), cat)
    assert label_of(page, "notice").startswith("notes.png")
    assert len(composer_of(page).pictures) == 1


def test_the_next_picture_ends_the_message_about_the_last(
    page: ChatPage, calls: ScriptedCalls, tmp_path: Path, cat: str
) -> None:
    load(page, calls)
    (tmp_path / "notes.png").write_text("text")
    attach(page, str(tmp_path / "notes.png"))
    attach(page, cat)
    assert label_of(page, "notice") == ""


def test_an_image_is_pasted(page: ChatPage, calls: ScriptedCalls) -> None:
    load(page, calls)
    QGuiApplication.clipboard().setImage(image())
    find(page, QPlainTextEdit, "composer").paste()
    settle(page.single.chat_view.pictures)
    assert [display_name(path) for path in composer_of(page).pictures] == ["pasted picture.png"]


def test_copied_files_are_pasted(page: ChatPage, calls: ScriptedCalls, cat: str) -> None:
    load(page, calls)
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(cat)])
    QGuiApplication.clipboard().setMimeData(mime)
    find(page, QPlainTextEdit, "composer").paste()
    settle(page.single.chat_view.pictures)
    assert [display_name(path) for path in composer_of(page).pictures] == ["cat.png"]


def test_text_is_pasted_as_before(page: ChatPage) -> None:
    QGuiApplication.clipboard().setText("hello")
    find(page, QPlainTextEdit, "composer").paste()
    assert composer_of(page).text == "hello"


def dropped(page: ChatPage, *paths: str) -> bool:
    """Drag files onto the conversation and drop them; return whether they were accepted."""
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(path) for path in paths])
    target, actions = page.single.chat_view, Qt.DropAction.CopyAction
    buttons, keys = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    enter = QDragEnterEvent(QPoint(50, 50), actions, mime, buttons, keys)
    QApplication.sendEvent(target, enter)
    if enter.isAccepted():
        QApplication.sendEvent(target, QDropEvent(QPointF(50, 50), actions, mime, buttons, keys))
        settle(page.single.chat_view.pictures)
    return enter.isAccepted()


def test_dropped_pictures_are_attached(page: ChatPage, calls: ScriptedCalls, tmp_path: Path, cat: str) -> None:
    load(page, calls)
    assert dropped(page, cat, picture(tmp_path, "dog.png", color="brown"))
    assert [display_name(path) for path in composer_of(page).pictures] == ["cat.png", "dog.png"]


def test_a_dropped_model_is_left_to_the_window(page: ChatPage, tmp_path: Path) -> None:
    assert not dropped(page, str(tmp_path / "model.gguf"))


def test_a_draft_stays_with_its_pictures_while_a_message_is_edited(seen: ChatPage, tmp_path: Path) -> None:
    attach(seen, picture(tmp_path, "dog.png", color="brown"))
    composer_of(seen).set_text("And this?")
    button(seen, "edit").click()
    assert [display_name(path) for path in composer_of(seen).pictures] == ["cat.png"]
    button(seen, "cancel_edit").click()
    assert [display_name(path) for path in composer_of(seen).pictures] == ["dog.png"]
    assert composer_of(seen).text == "And this?"


def test_an_edited_message_brings_its_pictures_back(seen: ChatPage, calls: ScriptedCalls) -> None:
    button(seen, "edit").click()
    assert composer_of(seen).text == "What is this?"
    send(seen, "Which animal is this?")
    assert sent(calls) == [("Which animal is this?", ["cat.png"])]


def test_a_picture_is_shown_above_its_text(seen: ChatPage) -> None:
    bubble = seen.single.view.messages[0]
    (tile,) = bubble.pictures
    assert tile.geometry().bottom() < find(bubble, ProseView).geometry().top()


def test_another_branch_shows_its_own_pictures(seen: ChatPage, calls: ScriptedCalls) -> None:
    button(seen, "edit").click()
    composer_of(seen).begin_edit("No picture?")
    send(seen, "No picture?")
    answered(seen, calls, "None.")
    assert seen.single.view.messages[0].pictures == []
    seen.single.view.messages[0].footer.other_asked.emit(-1)
    assert len(seen.single.view.messages[0].pictures) == 1


# --- models that do not read pictures ---


def test_the_button_says_why_pictures_cannot_be_attached(page: ChatPage, calls: ScriptedCalls) -> None:
    load(page, calls, reads=("text",))
    attach_button = find(page, QToolButton, "attach")
    assert not attach_button.isEnabled()
    assert attach_button.toolTip() == "tiny-4bit does not read pictures."


def test_a_model_that_cannot_get_them_here_gives_its_own_reason(page: ChatPage, calls: ScriptedCalls) -> None:
    load(page, calls, reads=("text",), pictures_note="The vision tower is not in this file.")
    assert find(page, QToolButton, "attach").toolTip() == "The vision tower is not in this file."


def test_a_picture_for_such_a_model_is_refused(page: ChatPage, calls: ScriptedCalls, cat: str) -> None:
    load(page, calls, reads=("text",))
    attach(page, cat)
    assert label_of(page, "notice") == "tiny-4bit does not read pictures. Select a model that reads pictures."
    assert composer_of(page).pictures == ()


def test_attached_pictures_stay_when_such_a_model_is_loaded(page: ChatPage, calls: ScriptedCalls, cat: str) -> None:
    attach(page, cat)
    composer_of(page).set_text("What is this?")
    load(page, calls, reads=("text",))
    assert len(composer_of(page).pictures) == 1
    assert label_of(page, "pictures_not_read").startswith("tiny-4bit does not read pictures.")
    assert not button(page, "send").isEnabled()


def test_without_its_pictures_the_draft_can_be_sent(page: ChatPage, calls: ScriptedCalls, cat: str) -> None:
    attach(page, cat)
    composer_of(page).set_text("What is this?")
    load(page, calls, reads=("text",))
    find(page, Attachments).tiles[0].removed.emit()
    assert label_of(page, "pictures_not_read") == ""
    assert button(page, "send").isEnabled()


def test_a_question_that_turns_out_to_be_unreadable_waits_for_a_decision(
    page: ChatPage, calls: ScriptedCalls, cat: str
) -> None:
    attach(page, cat)
    send(page, "What is this?")
    calls.last.succeed(OPENED, reads=("text",))
    assert label_of(page, "notice") == "tiny-4bit does not read pictures. Select a model that reads pictures."
    assert bubbles(page) == ["What is this?"]
    button(page, "notice_button").click()
    assert sent(calls) == [("What is this?", [])]


def test_a_picture_alone_cannot_be_answered_without_it(page: ChatPage, calls: ScriptedCalls, cat: str) -> None:
    attach(page, cat)
    send(page)
    calls.last.succeed(OPENED, reads=("text",))
    assert label_of(page, "notice").startswith("tiny-4bit does not read pictures.")
    assert not page.single.chat_view.notice._button.isVisible()


def test_earlier_pictures_are_left_out_and_this_is_told(seen: ChatPage, calls: ScriptedCalls) -> None:
    seen.single.pick("/models/tiny-4bit-text")
    calls.last.succeed(OPENED, reads=("text",))
    send(seen, "Thank you")
    assert sent(calls) == [("What is this?", []), ("A cat.", []), ("Thank you", [])]
    assert label_of(seen, "pictures_left_out").endswith("The pictures of this conversation are left out.")


def test_another_answer_to_a_picture_needs_a_model_that_reads_it(seen: ChatPage, calls: ScriptedCalls) -> None:
    seen.single.pick("/models/tiny-4bit-text")
    calls.last.succeed(OPENED, reads=("text",))
    seen.single.regenerate()
    assert bubbles(seen) == ["What is this?", "A cat."]
    button(seen, "notice_button").click()
    answered(seen, calls, "I cannot see it.")
    assert bubbles(seen) == ["What is this?", "I cannot see it."]


def test_a_picture_whose_file_is_missing_is_told(seen: ChatPage, calls: ScriptedCalls) -> None:
    (path,) = seen.single.conversation.path()[0].pictures
    Path(path).unlink()
    send(seen, "And now?")
    assert label_of(seen, "notice").startswith("The file of the picture cat.png is missing.")
    button(seen, "notice_button").click()
    assert sent(calls)[0] == ("What is this?", [])


def test_a_missing_picture_keeps_its_place(seen: ChatPage) -> None:
    conversation = seen.single.conversation
    (path,) = conversation.path()[0].pictures
    Path(path).unlink()
    seen.single.chat_view.pictures._previews.clear()
    seen.show_conversation(conversation)
    settle(seen.single.chat_view.pictures)
    (tile,) = seen.single.view.messages[0].pictures
    assert tile.problem == "The file is missing."


def test_the_key_for_pictures_concerns_the_chat_that_is_shown(page: ChatPage, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Composer] = []
    monkeypatch.setattr(Composer, "choose_pictures", lambda composer: opened.append(composer))
    page.attach_pictures()
    page.show_mode(TWO)
    page.attach_pictures()
    page.show_mode(ONE)
    assert opened[0] is composer_of(page)
    assert opened[1] is not opened[0]


def test_text_conversations_are_as_before(page: ChatPage, calls: ScriptedCalls) -> None:
    asked(page, calls)
    answered(page, calls)
    assert last_bubble(page).pictures == []
    assert label_of(page, "pictures_left_out") == ""
