"""The chat page with the real service and a tiny model: loading, answering, stopping, and crashes."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from PySide6.QtWidgets import QDoubleSpinBox, QLabel, QPushButton, QSpinBox
from pytestqt.qtbot import QtBot

from app.pages.chat.page import ChatPage
from app.pages.chat.transcript import Transcript
from app.shared.context import Context
from tests.app.conftest import Reports
from tests.app.find import find
from tests.app.pages.chat.pictures.samples import picture, settle

pytestmark = pytest.mark.slow
PATIENCE = 120_000


@pytest.fixture
def page(context: Context, tiny_model: Path, qtbot: QtBot) -> ChatPage:
    page = ChatPage(context)
    qtbot.addWidget(page)
    page.single.open_folder(str(tiny_model))
    page.resize(880, 580)
    page.show()
    # a random model says anything; hot, so that it does not end at once
    set_number(page, "temperature", 2)
    set_number(page, "seed", 3)
    return page


def set_number(page: ChatPage, key: str, value: int) -> None:
    field = page.findChild(QSpinBox, f"sampling_{key}") or find(page, QDoubleSpinBox, f"sampling_{key}")
    field.setValue(value)


def last_text(page: ChatPage) -> str:
    transcript = find(page, Transcript)
    return transcript.messages[-1].text if transcript.messages and not transcript.messages[-1].mine else ""


def caption(page: ChatPage) -> str:
    transcript = find(page, Transcript)
    label = find(transcript.messages[-1].footer, QLabel, "caption")
    return label.text()


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if child.is_running()]


def test_a_conversation(page: ChatPage, qtbot: QtBot, reports: Reports) -> None:
    """An answer, one that is stopped, and a question that is too long, with one child: loading takes the time here."""
    set_number(page, "max_tokens", 20)
    page.send("hello")
    qtbot.waitUntil(lambda: "token" in caption(page), timeout=PATIENCE)
    figures = page.single.view.conversation.last.figures  # type: ignore[union-attr] # there is an answer
    assert figures is not None
    assert figures.prompt_tokens == len("user: hello\nassistant:")
    assert 1 <= figures.tokens <= 20
    assert page.single.session.opened.context == 256

    set_number(page, "max_tokens", 100_000)
    page.new_conversation()
    page.send("hello")
    states = [page.single.session.state]
    page.single.stop()
    qtbot.waitUntil(lambda: page.single.session.state == "ready", timeout=PATIENCE)
    assert not page.single.view.answering

    page.send("x" * 600)
    notice = find(page, QLabel, "notice")
    qtbot.waitUntil(lambda: "256" in notice.text(), timeout=PATIENCE)
    states.append(page.single.session.state)
    assert (states, reports) == (["answering", "ready"], [])


def test_a_killed_child_is_told_and_the_conversation_stays(page: ChatPage, qtbot: QtBot, reports: Reports) -> None:
    before = {child.pid for child in children()}
    set_number(page, "max_tokens", 5)
    page.send("hello")
    qtbot.waitUntil(lambda: "token" in caption(page), timeout=PATIENCE)
    text = last_text(page)
    for child in children():
        if child.pid not in before:
            child.kill()
    qtbot.waitUntil(lambda: bool(reports), timeout=PATIENCE)
    assert reports[0][1] is not None
    assert reports[0][1].text == "Load again"
    assert last_text(page) == text


def test_a_folder_without_a_model_is_reported(page: ChatPage, qtbot: QtBot, reports: Reports, tmp_path: Path) -> None:
    page.single.open_folder(str(tmp_path))
    page.send("hello")
    qtbot.waitUntil(lambda: bool(reports), timeout=PATIENCE)
    assert "config.json" in reports[0][0].message
    assert page.single.session.state == "idle"


def test_a_question_about_a_picture(
    page: ChatPage, qtbot: QtBot, reports: Reports, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The prompt has tokens for the picture, also with a later question."""
    from tests.core.tiny_vision import save_vision_model

    page.single.open_folder(str(save_vision_model("qwen3_vl", tmp_path_factory.mktemp("models") / "seeing")))
    set_number(page, "max_tokens", 4)
    composer = page.single.chat_view.composer

    def tokens_of(text: str) -> int:
        composer.set_text(text)
        find(composer, QPushButton, "send").click()
        qtbot.waitUntil(lambda: "token" in caption(page), timeout=PATIENCE)
        figures = page.single.view.conversation.last.figures  # type: ignore[union-attr] # there is an answer
        assert figures is not None
        return figures.prompt_tokens

    composer.attach([picture(tmp_path, "cat.png", 96, 64)])
    settle(page.single.chat_view.pictures)
    seen, later = tokens_of("What is this?"), tokens_of("And now?")
    page.new_conversation()
    assert tokens_of("What is this?") < seen < later
    assert (page.single.session.opened.reads, reports) == (("text", "pictures"), [])
