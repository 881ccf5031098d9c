"""The list of models: recent models and results, keyboard use, and texts during a search."""

from __future__ import annotations

from typing import Any

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLabel, QPushButton
from pytestqt.qtbot import QtBot

from app.pages.model.hub_search import HubSearch
from app.pages.model.picker import ModelPicker
from app.theme import Theme
from core.errors import HubUnreachable
from core.hub.search import SearchResults
from core.service.messages import SearchHub
from tests.app.find import find
from tests.app.hub_records import AWQ, LLAMA, QWEN, SMOL, answer
from tests.app.recorded_calls import RecordedCalls


@pytest.fixture
def picker(qtbot: QtBot, theme: Theme, calls: RecordedCalls) -> ModelPicker:
    search: Any = HubSearch(calls)  # type: ignore[arg-type]
    made = ModelPicker(theme, search)
    search.setParent(made)
    qtbot.addWidget(made)
    made.resize(380, 560)
    with qtbot.waitExposed(made):
        made.show()
    return made


@pytest.fixture
def picks(picker: ModelPicker) -> list[str]:
    found: list[str] = []
    picker.picked.connect(found.append)
    return found


def type_and_find(qtbot: QtBot, picker: ModelPicker, calls: RecordedCalls, found: SearchResults) -> None:
    """Type a word, wait for the question, and answer it."""
    qtbot.keyClicks(picker.field, "qwen")
    qtbot.waitUntil(lambda: bool(calls.of(SearchHub)))
    calls.of(SearchHub)[-1].on_success(found)


def titles(picker: ModelPicker) -> list[str]:
    return [row.title for row in picker.rows()]


def status(picker: ModelPicker) -> str:
    label = find(picker, QLabel, "search_status")
    return label.text() if label.isVisible() else ""


def act(picker: ModelPicker) -> QPushButton:
    return find(picker, QPushButton, "search_act")


def test_models_opened_before_come_first(picker: ModelPicker) -> None:
    picker.set_recent(["demo", "/models/mine"])
    assert titles(picker) == ["Recent models", "SmolLM2-135M-Instruct", "mine"]


def test_results_follow_the_recent_ones_that_match(qtbot: QtBot, picker: ModelPicker, calls: RecordedCalls) -> None:
    picker.set_recent(["/models/my-qwen", "demo", QWEN.id])
    type_and_find(qtbot, picker, calls, answer(QWEN, LLAMA, AWQ))
    assert titles(picker) == [
        "Recent models", "my-qwen", "On the Hub", "Qwen3-0.6B", "Llama-3.2-1B-Instruct", "Qwen2.5-0.5B-Instruct-AWQ",
    ]  # fmt: skip


def test_by_keyboard_alone(qtbot: QtBot, picker: ModelPicker, calls: RecordedCalls, picks: list[str]) -> None:
    picker.focus_search()
    type_and_find(qtbot, picker, calls, answer(QWEN, LLAMA))
    qtbot.keyClick(picker.field, Qt.Key.Key_Down)
    assert picker.list.hasFocus()
    qtbot.keyClick(picker.list, Qt.Key.Key_Down)
    qtbot.keyClick(picker.list, Qt.Key.Key_Return)
    assert picks == [LLAMA.id]


def test_up_from_the_first_row_goes_back_to_the_field(qtbot: QtBot, picker: ModelPicker, calls: RecordedCalls) -> None:
    type_and_find(qtbot, picker, calls, answer(QWEN, LLAMA))
    qtbot.keyClick(picker.field, Qt.Key.Key_Return)
    assert picker.list.hasFocus()
    qtbot.keyClick(picker.list, Qt.Key.Key_Up)
    assert picker.field.hasFocus()


def test_a_click_picks_a_model_and_not_a_heading(
    qtbot: QtBot, picker: ModelPicker, calls: RecordedCalls, picks: list[str]
) -> None:
    type_and_find(qtbot, picker, calls, answer(QWEN))
    for number in range(2):
        place = picker.list.visualRect(picker.list.model().index(number, 0)).center()
        qtbot.mouseClick(picker.list.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert picks == [QWEN.id]


@pytest.mark.parametrize("text", ["Qwen/Qwen3-0.6B", "/models/mine", "https://huggingface.co/a/b", "demo"])
def test_enter_opens_what_is_a_name_by_itself(qtbot: QtBot, picker: ModelPicker, picks: list[str], text: str) -> None:
    qtbot.keyClicks(picker.field, text)
    qtbot.keyClick(picker.field, Qt.Key.Key_Return)
    assert picks == [text]


@pytest.mark.parametrize("text", ["/models/mine", "https://huggingface.co/a/b", "~/m"])
def test_a_path_or_a_link_is_not_searched_for(
    qtbot: QtBot, picker: ModelPicker, calls: RecordedCalls, text: str
) -> None:
    qtbot.keyClicks(picker.field, text)
    assert status(picker) == "Press Enter to open."
    picker._search.ask()
    assert calls.started == []


def test_enter_does_not_wait_for_the_pause(qtbot: QtBot, picker: ModelPicker, calls: RecordedCalls) -> None:
    picker.field.setText("qwen")
    qtbot.keyClick(picker.field, Qt.Key.Key_Return)
    assert len(calls.of(SearchHub)) == 1


def test_while_searching_it_can_be_stopped(qtbot: QtBot, picker: ModelPicker, calls: RecordedCalls) -> None:
    picker.field.setText("qwen")
    assert (status(picker), act(picker).text()) == ("Searching…", "Stop")
    act(picker).click()
    assert (status(picker), act(picker).text()) == ("Search stopped.", "Try again")


def test_escape_empties_the_field_and_ends_the_search(qtbot: QtBot, picker: ModelPicker, calls: RecordedCalls) -> None:
    type_and_find(qtbot, picker, calls, answer(QWEN))
    qtbot.keyClick(picker.field, Qt.Key.Key_Escape)
    assert (picker.field.text(), titles(picker)) == ("", [])


def test_offline_says_so_and_shows_the_cache(qtbot: QtBot, picker: ModelPicker, calls: RecordedCalls) -> None:
    type_and_find(qtbot, picker, calls, answer(SMOL, offline=True))
    assert "cannot be reached" in status(picker)
    assert titles(picker) == ["In the local cache", "SmolLM2-135M"]
    assert act(picker).text() == "Try again"


def test_offline_with_nothing_in_the_cache(qtbot: QtBot, picker: ModelPicker, calls: RecordedCalls) -> None:
    type_and_find(qtbot, picker, calls, answer(offline=True))
    assert "no model in the local cache matches" in status(picker)


def test_nothing_found_is_said(qtbot: QtBot, picker: ModelPicker, calls: RecordedCalls) -> None:
    type_and_find(qtbot, picker, calls, answer())
    assert (status(picker), act(picker).isVisible()) == ("No matching models on the Hub.", False)


def test_a_failed_search_says_why_and_can_be_repeated(qtbot: QtBot, picker: ModelPicker, calls: RecordedCalls) -> None:
    qtbot.keyClicks(picker.field, "qwen")
    qtbot.waitUntil(lambda: bool(calls.started))
    calls.started[0].on_failure(HubUnreachable("The Hub answered with status 500.", "Try again later."))
    assert status(picker) == "The Hub answered with status 500. Try again later."
    act(picker).click()
    assert len(calls.of(SearchHub)) == 2


def test_order_and_filter_are_part_of_the_question(qtbot: QtBot, picker: ModelPicker, calls: RecordedCalls) -> None:
    type_and_find(qtbot, picker, calls, answer(QWEN))
    picker.sort.setCurrentIndex(picker.sort.findData("updated"))
    picker.hide_quantized.setChecked(False)
    qtbot.waitUntil(lambda: len(calls.of(SearchHub)) == 2)
    assert calls.started[1].request == SearchHub("qwen", 50, "updated", hide_quantized=False)


def test_every_order_is_one_that_the_service_knows(picker: ModelPicker) -> None:
    from core.hub.search import SORTS

    assert {picker.sort.itemData(number) for number in range(picker.sort.count())} <= set(SORTS)


def test_the_filters_are_out_of_the_way_until_something_is_typed(picker: ModelPicker) -> None:
    assert not picker.sort.isVisible()
    picker.field.setText("qwen")
    assert picker.sort.isVisible()


def test_the_buttons_ask(qtbot: QtBot, picker: ModelPicker, picks: list[str]) -> None:
    with qtbot.waitSignals([picker.folder_wanted, picker.gguf_wanted]):
        picker.folder.click()
        picker.gguf.click()
    picker.demo.click()
    assert picks == ["demo"]


@pytest.mark.parametrize("direction", [Qt.LayoutDirection.LeftToRight, Qt.LayoutDirection.RightToLeft])
def test_rows_are_painted_with_badges_in_either_direction(
    qtbot: QtBot, picker: ModelPicker, calls: RecordedCalls, theme: Theme, direction: Qt.LayoutDirection
) -> None:
    picker.setLayoutDirection(direction)
    type_and_find(qtbot, picker, calls, answer(LLAMA))
    row = picker.list.visualRect(picker.list.model().index(1, 0))
    image = picker.list.viewport().grab(row).toImage()
    near = theme.color("warning").rgb()
    middle = image.width() // 2
    sides = [
        any(image.pixel(x, y) == near for x in columns for y in range(image.height()))
        for columns in (range(middle), range(middle, image.width()))
    ]
    assert sides == ([False, True] if direction == Qt.LayoutDirection.LeftToRight else [True, False])
