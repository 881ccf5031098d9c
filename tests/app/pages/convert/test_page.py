"""The Convert page: selecting a model, table, choice, conversion, and result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PySide6.QtCore import QMimeData, QPoint, Qt, QUrl
from PySide6.QtGui import QDesktopServices, QDragEnterEvent, QDropEvent
from pytestqt.qtbot import QtBot

from app.pages.convert.page import REQUEST, ConvertPage
from app.shared.run import notification
from core.conversion.survey import ConversionOption
from core.errors import BadInput
from core.events import Progress, Stage
from core.home import home
from core.service.messages import ConvertModel, ListOutputs, OutputList, OutputModel, SurveyConversions
from tests.app.pages.convert.parts import button, choose, look_at, said, shown_page
from tests.app.pages.convert.possible_rows import ERROR, SURVEY, converted
from tests.app.reading_aloud import unnamed, unreachable
from tests.app.recorded_calls import RecordedCalls

if TYPE_CHECKING:
    from app.shared.context import Context

OUTPUTS = OutputList(
    (
        OutputModel(Path("/m/made"), "", "W4 g64 sym", "demo", 1.0),
        OutputModel(Path("/m/older"), "", "W3 g64 sym", "demo", 0.0),
    )
)


@pytest.fixture
def page(qtbot: QtBot, context: Context, calls: RecordedCalls) -> ConvertPage:
    return shown_page(qtbot, context, calls)


@pytest.fixture
def ready(page: ConvertPage, calls: RecordedCalls) -> ConvertPage:
    """With the table of a model."""
    look_at(page, calls)
    return page


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The desktop notifications."""
    found: list[str] = []
    monkeypatch.setattr(notification, "show", lambda title, _text: found.append(title))
    return found


def finish(page: ConvertPage, calls: RecordedCalls, output: Path | str, **changes: Any) -> None:
    """Convert the chosen row and let the service answer."""
    page.convert()
    calls.of(ConvertModel)[-1].on_success(converted(str(output), **changes))


# --- before there is a model ---


def test_the_newest_finished_model_is_one_press_away(page: ConvertPage, calls: RecordedCalls) -> None:
    calls.of(ListOutputs)[0].on_success(OUTPUTS)
    assert button(page, "convert_begin").text() == "Convert made"
    button(page, "convert_begin").click()
    assert calls.of(SurveyConversions)[0].request.model == "/m/made"


def test_without_finished_models_it_begins_with_a_folder(page: ConvertPage, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    page.welcome.folder_wanted.connect(lambda: asked.append("folder"))
    monkeypatch.setattr(page.source, "_ask", lambda *_: None)
    assert button(page, "convert_begin").text() == "Open model folder"
    button(page, "convert_begin").click()
    assert asked == ["folder"]


def test_finished_models_come_first_then_what_was_opened(page: ConvertPage, calls: RecordedCalls) -> None:
    page._context.state.add_recent("o/opened")
    page._context.state.add_recent("demo")
    calls.of(ListOutputs)[0].on_success(OUTPUTS)
    box = page.source.box
    assert [box.itemData(place) for place in range(box.count())] == ["/m/made", "/m/older", None, "o/opened"]


@pytest.mark.parametrize(
    ("typed", "name"),
    [("o/small", "o/small"), ("https://huggingface.co/o/small", "o/small"), ("/m/x.gguf", "/m/x.gguf")],
)
def test_a_name_can_be_typed(page: ConvertPage, calls: RecordedCalls, qtbot: QtBot, typed: str, name: str) -> None:
    qtbot.keyClicks(page.source.field, typed)
    qtbot.keyClick(page.source.field, Qt.Key.Key_Return)
    assert [call.request.model for call in calls.of(SurveyConversions)] == [name]


def test_what_is_no_name_is_not_asked_for(page: ConvertPage, calls: RecordedCalls, qtbot: QtBot) -> None:
    qtbot.keyClicks(page.source.field, "nonsense")
    qtbot.keyClick(page.source.field, Qt.Key.Key_Return)
    assert calls.of(SurveyConversions) == []
    assert said(page, "convert_about").startswith("No model named nonsense.")


def test_a_listed_model_is_picked_by_its_label(page: ConvertPage, calls: RecordedCalls, qtbot: QtBot) -> None:
    calls.of(ListOutputs)[0].on_success(OUTPUTS)
    qtbot.keyClicks(page.source.field, "older")
    qtbot.keyClick(page.source.field, Qt.Key.Key_Return)
    assert [call.request.model for call in calls.of(SurveyConversions)] == ["/m/older"]


def test_what_is_typed_survives_news_of_finished_models(page: ConvertPage, calls: RecordedCalls, qtbot: QtBot) -> None:
    page.source.field.setFocus()
    qtbot.waitUntil(page.source.field.hasFocus)
    qtbot.keyClicks(page.source.field, "o/sm")
    calls.of(ListOutputs)[0].on_success(OUTPUTS)
    assert page.source.field.text() == "o/sm"


def test_another_page_can_leave_a_model(page: ConvertPage, calls: RecordedCalls) -> None:
    page._context.state.set_value(REQUEST, "/m/left")
    page.hide()
    page.show()
    assert calls.of(SurveyConversions)[0].request.model == "/m/left"
    assert page._context.state.value(REQUEST, "") == ""


# --- looking ---


def test_while_it_looks_it_says_so_and_can_be_stopped(page: ConvertPage, calls: RecordedCalls, qtbot: QtBot) -> None:
    page.open_model("/m/small")
    assert page.looking.isVisible()
    qtbot.keyClick(page, Qt.Key.Key_Escape)
    assert calls.of(SurveyConversions)[0].stopped
    assert page.welcome.isVisible()


def test_a_model_that_cannot_be_read_says_why(page: ConvertPage, calls: RecordedCalls) -> None:
    page.open_model("/m/small")
    calls.of(SurveyConversions)[0].on_failure(BadInput("It cannot be read.", "Choose another."))
    assert said(page, "convert_trouble") == "It cannot be read. Choose another."


def test_a_dropped_model_is_looked_at(page: ConvertPage, calls: RecordedCalls, tmp_path: Path) -> None:
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(tmp_path))])
    nobody, left = Qt.KeyboardModifier.NoModifier, Qt.MouseButton.LeftButton
    entered = QDragEnterEvent(QPoint(1, 1), Qt.DropAction.CopyAction, mime, left, nobody)
    page.dragEnterEvent(entered)
    assert entered.isAccepted()
    page.dropEvent(QDropEvent(QPoint(1, 1), Qt.DropAction.CopyAction, mime, left, nobody))
    assert calls.of(SurveyConversions)[0].request.model == str(tmp_path)


# --- choosing ---


def test_the_table_has_the_keyboard_and_the_first_other_format(ready: ConvertPage, qtbot: QtBot) -> None:
    qtbot.waitUntil(ready.view.hasFocus)
    assert said(ready, "choice_title") == "GPTQ: exact, 117 MB"
    assert said(ready, "convert_about") == "AutoRound, 210 layers W4 g64 sym, 116 MB"


def test_arrows_pass_over_headings(ready: ConvertPage, qtbot: QtBot) -> None:
    choose(ready, "gguf")
    qtbot.keyClick(ready.view, Qt.Key.Key_Down)
    assert ready.view.current is not None
    assert ready.view.current.format == "bf16"


def test_what_is_not_possible_cannot_be_converted(ready: ConvertPage, calls: RecordedCalls, said: list[str]) -> None:
    choose(ready, "auto_awq")
    assert not button(ready, "next").isEnabled()
    assert ready.choice.output.isHidden()
    ready.convert()
    assert calls.of(ConvertModel) == []
    assert said == ["Select another format"]


def test_an_error_has_to_be_allowed_first(ready: ConvertPage, calls: RecordedCalls) -> None:
    choose(ready, "bf16")
    assert not button(ready, "next").isEnabled()
    ready.choice.allow.click()
    button(ready, "next").click()
    assert calls.of(ConvertModel)[0].request.inexact is True


def test_what_was_allowed_is_allowed_for_one_format(ready: ConvertPage) -> None:
    choose(ready, "bf16")
    ready.choice.allow.click()
    choose(ready, "gguf")
    choose(ready, "bf16")
    assert not ready.choice.allow.isChecked()


def test_each_format_has_a_folder_of_its_own(ready: ConvertPage) -> None:
    choose(ready, "gguf")
    assert ready.choice._output == home() / "models" / "small-gguf"
    choose(ready, "auto_round")
    assert ready.choice._output == home() / "models" / "small-auto_round"


def test_a_folder_that_is_taken_stands_against_it(ready: ConvertPage, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    ready.choice.output.chosen.emit(str(tmp_path / "full"))
    assert ready.choice.obstacle == "Choose another folder"


def test_no_room_on_the_disk_stands_against_it(page: ConvertPage, calls: RecordedCalls) -> None:
    look_at(page, calls, survey=replace(SURVEY, options=(ConversionOption("f32", "exact", "", 10**18),)))
    assert page.choice.obstacle.startswith("Needs ")


# --- converting ---


def test_enter_on_a_row_converts_it(ready: ConvertPage, calls: RecordedCalls, qtbot: QtBot, tmp_path: Path) -> None:
    choose(ready, "gguf")
    ready.choice.output.chosen.emit(str(tmp_path / "out"))
    qtbot.keyClick(ready.view, Qt.Key.Key_Return)
    (call,) = calls.of(ConvertModel)
    assert call.request == ConvertModel("/m/small", str(tmp_path / "out"), "gguf")


def test_it_shows_what_it_does_and_how_far(ready: ConvertPage, calls: RecordedCalls) -> None:
    choose(ready, "gguf")
    ready.convert()
    call = calls.of(ConvertModel)[0]
    call.on_event(Stage("convert"))
    call.on_event(Progress(0.25, 20, 31))
    assert ready.progress._title.text() == "Converting small to GGUF"
    assert ready.progress._figures.text() == "25%, 20 to 31 s left"
    call.on_event(Stage("verify"))
    assert ready.progress._title.text() == "Comparing the output with small"


def test_it_can_be_cancelled(ready: ConvertPage, calls: RecordedCalls, said: list[str]) -> None:
    ready.convert()
    ready.progress.cancel.click()
    assert calls.of(ConvertModel)[0].stopped
    assert said == ["The conversion was cancelled. Its files were removed."]
    assert ready.choice.isVisible()


def test_while_it_converts_no_other_model_is_taken(ready: ConvertPage, calls: RecordedCalls) -> None:
    ready.convert()
    ready.open_model("/m/other")
    assert len(calls.of(SurveyConversions)) == 1


def test_a_conversion_that_fails_can_be_tried_again(
    ready: ConvertPage, calls: RecordedCalls, reports: list[tuple[Any, Any]], visited: list[str]
) -> None:
    ready.convert()
    calls.of(ConvertModel)[0].on_failure(BadInput("It broke.", "Mend it."))
    ((error, remedy),) = reports
    remedy.act()
    assert (error.message, visited, len(calls.of(ConvertModel))) == ("It broke.", ["convert"], 2)


# --- what came of it ---


def test_an_exact_result_says_so(
    ready: ConvertPage, calls: RecordedCalls, told: list[str], said: list[str], tmp_path: Path
) -> None:
    choose(ready, "gguf")
    finish(ready, calls, tmp_path)
    assert ready.outcome.isVisible()
    assert said == ["small was converted: exact conversion."]
    assert told == ["Conversion finished"]


def test_an_error_is_shown(ready: ConvertPage, calls: RecordedCalls, told: list[str], tmp_path: Path) -> None:
    choose(ready, "bf16")
    ready.choice.allow.click()
    finish(ready, calls, tmp_path, format_name="bf16", error=ERROR)
    assert ready.outcome._headline.text() == "The weights changed by 0.41 %"
    assert ready.outcome._headline.role == "warning"


def test_chat_and_folder_are_offered(
    ready: ConvertPage,
    calls: RecordedCalls,
    told: list[str],
    visited: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[str] = []

    def open_url(url: QUrl) -> bool:
        opened.append(url.toLocalFile())
        return True

    monkeypatch.setattr(QDesktopServices, "openUrl", open_url)
    finish(ready, calls, tmp_path)
    button(ready, "chat").click()
    button(ready, "open_folder").click()
    assert (visited, opened) == (["chat"], [str(tmp_path)])
    assert ready._context.state.value("chat/model", "") == str(tmp_path)


def test_a_result_makes_way_for_another_row(
    ready: ConvertPage, calls: RecordedCalls, told: list[str], tmp_path: Path
) -> None:
    finish(ready, calls, tmp_path)
    choose(ready, "gguf")
    assert ready.choice.isVisible()
    assert said(ready, "choice_title").startswith("GGUF")


def test_one_that_ends_unseen_gives_the_rail_a_dot(
    ready: ConvertPage, calls: RecordedCalls, told: list[str], tmp_path: Path
) -> None:
    ready.convert()
    ready.hide()
    calls.of(ConvertModel)[0].on_success(converted(str(tmp_path)))
    assert ready.dot()
    ready.show()
    assert not ready.dot()


# --- for everybody ---


@pytest.mark.parametrize("state", ["looking", "inexact", "converting", "done"])
def test_everything_has_a_name_and_the_keyboard_gets_there(
    page: ConvertPage, calls: RecordedCalls, told: list[str], tmp_path: Path, state: str
) -> None:
    page.open_model("/m/small")
    if state != "looking":
        calls.of(SurveyConversions)[0].on_success(SURVEY)
        choose(page, "bf16")
    if state in ("converting", "done"):
        choose(page, "gguf")
        page.convert()
    if state == "done":
        calls.of(ConvertModel)[0].on_success(converted(str(tmp_path)))
    assert (unnamed(page), unreachable(page)) == ([], [])


def test_the_page_needs_no_more_width_than_there_is(ready: ConvertPage) -> None:
    assert ready.minimumSizeHint().width() <= 880
