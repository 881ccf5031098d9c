"""The chat page with a scripted session: loading, sending, stopping, and regenerating."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from PySide6.QtCore import QEvent, Qt
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QComboBox, QDoubleSpinBox, QLabel, QPlainTextEdit, QProgressBar
from pytestqt.qtbot import QtBot

from app.pages.chat.page import REQUEST, ChatPage
from app.shared.context import Context
from core.errors import ModelNotFound, OutOfMemory
from core.events import Log, Progress
from core.service.messages import LoadModel, Say
from core.spec import JobSpec
from tests.app.find import find
from tests.app.pages.chat.parts import (
    MODEL,
    ROWS,
    PlayedRuns,
    answered,
    asked,
    bubbles,
    button,
    label_of,
    last_bubble,
    shown_page,
)  # fmt: skip
from tests.app.scripted_session import ANSWERED, OPENED, ScriptedCalls

# --- loading ---


def test_showing_the_page_loads_nothing(page: ChatPage, calls: ScriptedCalls) -> None:
    assert calls.sessions == []


def test_load_loads_the_picked_model(page: ChatPage, calls: ScriptedCalls) -> None:
    button(page, "load").click()
    assert calls.last.request == LoadModel(MODEL)


def test_loading_says_what_happens(page: ChatPage, calls: ScriptedCalls) -> None:
    button(page, "load").click()
    calls.last.event(Log("info", "Downloading model.safetensors"))
    calls.last.event(Progress(0.25, 10, 20))
    assert label_of(page, "notice") == "Downloading model.safetensors"
    assert find(page, QProgressBar, "notice_progress").value() == 250


def test_loading_can_be_cancelled(page: ChatPage, calls: ScriptedCalls) -> None:
    button(page, "load").click()
    button(page, "notice_button").click()
    assert calls.sessions[0].closed
    assert button(page, "load").text() == "Load"
    assert label_of(page, "notice") == ""


def test_a_loaded_model_says_what_it_is_and_how_it_is_computed(page: ChatPage, calls: ScriptedCalls) -> None:
    button(page, "load").click()
    calls.last.succeed(OPENED, backends=ROWS)
    assert label_of(page, "chat_model_detail") == "116 MB, 14 layers W4 g64 sym"
    assert label_of(page, "chat_backend") == "On Test CPU: Native kernels (14 layers), float32"


def test_a_model_whose_quantized_weights_are_unpacked_says_so(page: ChatPage, calls: ScriptedCalls) -> None:
    button(page, "load").click()
    calls.last.succeed(OPENED, schemes={}, unpacked="MXFP4")
    assert label_of(page, "chat_model_detail") == "116 MB, MXFP4, unpacked to 16 bits"


def test_a_model_without_a_chat_format_is_told(page: ChatPage, calls: ScriptedCalls) -> None:
    button(page, "load").click()
    calls.last.succeed(OPENED, template=False)
    assert "it continues text instead of answering" in label_of(page, "chat_model_detail")


def test_unload_gives_the_memory_back(page: ChatPage, calls: ScriptedCalls) -> None:
    button(page, "load").click()
    calls.last.succeed(OPENED)
    button(page, "load").click()
    assert calls.sessions[0].closed
    assert button(page, "load").text() == "Load"


def test_a_model_that_cannot_be_loaded_is_reported_with_a_remedy(
    page: ChatPage, calls: ScriptedCalls, reports: list[Any]
) -> None:
    button(page, "load").click()
    calls.last.fail(OutOfMemory("There is not enough memory.", "Close other programs."))
    error, remedy = reports[-1]
    assert error.message == "There is not enough memory."
    remedy.act()
    assert len(calls.sessions) == 2
    assert isinstance(calls.last.request, LoadModel)


def test_in_place_of_a_model_that_is_gone_another_one_can_be_opened(
    page: ChatPage, calls: ScriptedCalls, reports: list[Any]
) -> None:
    button(page, "load").click()
    calls.last.fail(ModelNotFound("There is no folder.", "Check the path."))
    assert reports[-1][1].text.startswith("Open folder")


def test_what_a_cancelled_load_still_says_is_not_heard(page: ChatPage, calls: ScriptedCalls) -> None:
    button(page, "load").click()
    late = calls.last
    button(page, "load").click()
    late.succeed(OPENED)
    assert button(page, "load").text() == "Load"


# --- what another page asks for ---


def test_chat_with_it_loads_at_once(
    qtbot: QtBot, surroundings: Context, calls: ScriptedCalls, runs: PlayedRuns
) -> None:
    runs.record = SimpleNamespace(state="done", spec=None)
    surroundings.state.set_value(REQUEST, "/models/just-made")
    shown_page(qtbot, surroundings)
    assert calls.last.request.model == "/models/just-made"


def test_a_model_can_be_opened_while_the_page_is_shown(page: ChatPage, calls: ScriptedCalls, runs: PlayedRuns) -> None:
    runs.record = SimpleNamespace(state="done", spec=None)
    page.open_model("/models/just-made")
    assert calls.last.request.model == "/models/just-made"


def test_of_several_formats_the_first_is_opened(page: ChatPage, runs: PlayedRuns) -> None:
    spec = JobSpec("owner/big", "/models/both", formats=("auto_round", "auto_gptq"))
    runs.record = SimpleNamespace(state="failed", spec=spec)
    page.open_model("/models/both")
    assert find(page, QComboBox, "chat_model").currentData() == str(Path("/models/both/auto_round"))


def test_a_request_without_a_finished_run_only_picks(qtbot: QtBot, surroundings: Context, calls: ScriptedCalls) -> None:
    surroundings.state.set_value(REQUEST, "/models/other")
    page = shown_page(qtbot, surroundings)
    assert calls.sessions == []
    assert find(page, QComboBox, "chat_model").currentText() == "other"


def test_a_request_is_taken_once(qtbot: QtBot, surroundings: Context) -> None:
    surroundings.state.set_value(REQUEST, "/models/other")
    shown_page(qtbot, surroundings)
    assert surroundings.state.value(REQUEST, "") == ""


# --- asking ---


def test_the_first_message_loads_and_waits(page: ChatPage, calls: ScriptedCalls) -> None:
    page.send("hello")
    loading = calls.last
    assert isinstance(loading.request, LoadModel)
    assert bubbles(page) == ["hello"]
    loading.succeed(OPENED)
    assert list(calls.last.request.messages) == [{"role": "user", "content": "hello"}]


def test_an_example_is_a_message(page: ChatPage, calls: ScriptedCalls) -> None:
    button(page, "example_0").click()
    assert bubbles(page) == ["What is the capital of France?"]


def test_the_system_prompt_goes_first(page: ChatPage, calls: ScriptedCalls) -> None:
    find(page, QPlainTextEdit, "system_prompt").setPlainText("Be brief.")
    asked(page, calls)
    assert calls.last.request.messages[0] == {"role": "system", "content": "Be brief."}


def test_sampling_goes_with_the_message(page: ChatPage, calls: ScriptedCalls) -> None:
    find(page, QDoubleSpinBox, "sampling_temperature").setValue(0.5)
    asked(page, calls)
    assert calls.last.request.sampling.temperature == 0.5


def test_the_answer_streams_into_its_bubble(page: ChatPage, calls: ScriptedCalls) -> None:
    asked(page, calls)
    calls.last.say("One ", "two")
    assert bubbles(page) == ["hello", "One two"]


def test_a_conversation_goes_on(page: ChatPage, calls: ScriptedCalls) -> None:
    asked(page, calls)
    answered(page, calls)
    page.send("more")
    contents = [message["content"] for message in calls.last.request.messages]
    assert contents == ["hello", "hi", "more"]


def test_the_figures_of_an_answer_are_shown(page: ChatPage, calls: ScriptedCalls) -> None:
    asked(page, calls)
    answered(page, calls)
    shown = [label_of(page, f"figure_{name}") for name in ("speed", "first", "prompt", "tokens", "context")]
    assert shown == ["10", "0.5 s", "30", "12", "42 of 2,048 tokens"]


def test_nothing_is_counted_that_an_answer_tells(page: ChatPage, calls: ScriptedCalls) -> None:
    asked(page, calls)
    answered(page, calls)
    assert [type(call.request) for call in calls.sessions[0].calls] == [LoadModel, Say]


def test_figures_of_an_answer_that_is_coming_are_marked_as_worked_out(page: ChatPage, calls: ScriptedCalls) -> None:
    asked(page, calls)
    calls.last.say("A long first piece of text")
    page.single._update_figures()
    assert label_of(page, "figure_tokens").startswith("\N{ALMOST EQUAL TO}")


# --- stopping ---


def test_stop_asks_the_child_and_keeps_what_came(page: ChatPage, calls: ScriptedCalls) -> None:
    asked(page, calls)
    calls.last.say("Half an")
    button(page, "send").click()
    assert calls.last.stopped
    calls.last.succeed(ANSWERED, ended_by="stopped")
    assert bubbles(page) == ["hello", "Half an"]
    assert "stopped" in find(last_bubble(page).footer, QLabel, "caption").text()


def test_esc_stops(page: ChatPage, calls: ScriptedCalls, qtbot: QtBot) -> None:
    asked(page, calls)
    qtbot.keyClick(find(page, QPlainTextEdit, "composer"), Qt.Key.Key_Escape)
    assert calls.last.stopped


def test_esc_is_the_windows_while_nothing_goes_on(page: ChatPage) -> None:
    key = QKeyEvent(QEvent.Type.KeyPress, Qt.Key.Key_Escape, Qt.KeyboardModifier.NoModifier)
    page.keyPressEvent(key)
    assert not key.isAccepted()


def test_a_second_stop_ends_a_child_that_does_not_hear(page: ChatPage, calls: ScriptedCalls) -> None:
    asked(page, calls)
    calls.last.say("Half an")
    page.single.stop()
    page.single.stop()
    assert calls.sessions[0].closed
    assert bubbles(page) == ["hello", "Half an"]


def test_an_answer_stopped_before_its_first_word_can_be_asked_for_again(page: ChatPage, calls: ScriptedCalls) -> None:
    asked(page, calls)
    page.single.stop()
    calls.last.succeed(ANSWERED, tokens=0, ended_by="stopped")
    assert bubbles(page) == ["hello"]
    button(page, "notice_button").click()
    assert list(calls.last.request.messages) == [{"role": "user", "content": "hello"}]


# --- again, copy, clear ---


def test_regenerate_asks_the_same_question(page: ChatPage, calls: ScriptedCalls) -> None:
    asked(page, calls)
    answered(page, calls)
    button(page, "regenerate").click()
    assert list(calls.last.request.messages) == [{"role": "user", "content": "hello"}]
    answered(page, calls, "good day")
    assert bubbles(page) == ["hello", "good day"]


def test_the_earlier_answer_can_be_shown_again(page: ChatPage, calls: ScriptedCalls) -> None:
    asked(page, calls)
    answered(page, calls)
    button(page, "regenerate").click()
    answered(page, calls, "good day")
    button(page, "answer_before").click()
    assert bubbles(page) == ["hello", "hi"]


def test_only_the_last_answer_can_be_regenerated(page: ChatPage, calls: ScriptedCalls) -> None:
    for text in ("one", "two"):
        if not bubbles(page):
            asked(page, calls, text)
        else:
            page.send(text)
        answered(page, calls)
    button(page, "regenerate")


def test_regenerating_into_a_load_that_is_cancelled_loses_nothing(page: ChatPage, calls: ScriptedCalls) -> None:
    asked(page, calls)
    answered(page, calls)
    button(page, "load").click()
    page.single.regenerate()
    page.single.stop()
    assert bubbles(page) == ["hello", "hi"]


def test_a_new_conversation_begins_empty_and_keeps_the_model(page: ChatPage, calls: ScriptedCalls) -> None:
    asked(page, calls)
    answered(page, calls)
    button(page, "new_talk").click()
    assert bubbles(page) == []
    page.send("other")
    assert list(calls.last.request.messages) == [{"role": "user", "content": "other"}]


def test_a_conversation_is_saved_as_markdown(page: ChatPage, calls: ScriptedCalls, tmp_path: Path) -> None:
    asked(page, calls)
    answered(page, calls)
    page.save_to(str(tmp_path / "talk.md"))
    page.store.wait()
    assert (tmp_path / "talk.md").read_text(encoding="utf-8").endswith("**You**\n\nhello\n\n**tiny-4bit**\n\nhi\n")


def test_a_place_that_cannot_be_written_is_reported(
    page: ChatPage, tmp_path: Path, reports: list[Any], qtbot: QtBot
) -> None:
    page.save_to(str(tmp_path / "missing" / "talk.md"))
    qtbot.waitUntil(lambda: bool(reports))
    assert "cannot be written" in reports[-1][0].message
