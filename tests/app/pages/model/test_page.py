"""The Model page: start, selecting, opening, errors, and the real service."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFileDialog, QPushButton, QWidget
from pytestqt.qtbot import QtBot

from app.pages.model.page import ModelPage
from core.errors import BitwrightError, ChildDied, HubUnreachable, MissingDependency, ModelNotFound
from core.events import Progress
from core.service.messages import OpenModel
from tests.app.find import find
from tests.app.pages.model.opened_page import open_as, shown_page, text_of
from tests.app.recorded_calls import RecordedCalls

if TYPE_CHECKING:
    from app.shared.context import Context
    from app.shared.models.opened import OpenedModel


@pytest.fixture
def page(qtbot: QtBot, context: Context, calls: RecordedCalls) -> ModelPage:
    return shown_page(qtbot, context, calls)


# --- the first start ---


def test_the_first_start_offers_the_demo(page: ModelPage, calls: RecordedCalls) -> None:
    assert page.welcome.isVisible()
    find(page, QPushButton, "use_demo").click()
    assert calls.of(OpenModel)[0].request.model == "demo"


def test_the_cursor_is_in_the_search_field_while_there_is_no_model(page: ModelPage, qtbot: QtBot) -> None:
    qtbot.waitUntil(page.picker.field.hasFocus)


def test_nothing_is_asked_of_the_service_before_the_user_asks(page: ModelPage, calls: RecordedCalls) -> None:
    assert calls.started == []


def test_next_needs_a_model(page: ModelPage, calls: RecordedCalls, opened: OpenedModel, visited: list[str]) -> None:
    assert not page.next.isEnabled()
    open_as(page, calls, opened)
    page.next.click()
    assert visited == ["recipe"]


# --- opening ---


def test_a_model_that_opens_is_chosen_and_remembered(
    page: ModelPage, calls: RecordedCalls, opened: OpenedModel
) -> None:
    open_as(page, calls, opened)
    assert page.context.draft.model is opened
    assert page.context.state.recent[0] == opened.name
    assert page.details.isVisible()
    assert text_of(page, "model_name") == opened.label


def test_opening_shows_that_it_works_and_can_be_cancelled(
    page: ModelPage, calls: RecordedCalls, opened: OpenedModel
) -> None:
    page.open_model("a/b")
    assert page.opening.isVisible()
    page.opening.bar.cancel.click()
    assert calls.started[0].stopped
    calls.started[0].on_success(opened)  # was on its way
    assert page.context.draft.model is None
    assert page.welcome.isVisible()


def test_escape_cancels_the_opening(page: ModelPage, calls: RecordedCalls, qtbot: QtBot) -> None:
    page.open_model("a/b")
    qtbot.keyClick(page, Qt.Key.Key_Escape)
    assert calls.started[0].stopped


def test_another_pick_takes_the_place_of_the_first(page: ModelPage, calls: RecordedCalls, opened: OpenedModel) -> None:
    page.open_model("a/b")
    page.open_model("c/d")
    first, second = calls.of(OpenModel)
    assert first.stopped
    second.on_success(replace(opened, name="c/d"))
    first.on_success(replace(opened, name="a/b"))
    assert page.context.draft.model is not None
    assert page.context.draft.model.name == "c/d"


def test_a_double_click_asks_once(page: ModelPage, calls: RecordedCalls) -> None:
    page.open_model("a/b")
    page.open_model("a/b")
    assert len(calls.of(OpenModel)) == 1


def test_a_link_is_opened_as_the_model_it_leads_to(page: ModelPage, calls: RecordedCalls) -> None:
    page.open_model("https://huggingface.co/Qwen/Qwen3-0.6B/tree/main")
    assert calls.started[0].request.model == "Qwen/Qwen3-0.6B"


def test_progress_of_an_import_moves_the_bar(page: ModelPage, calls: RecordedCalls) -> None:
    page.open_model("/x/model.gguf")
    calls.started[0].on_event(Progress(0.5, 3, 4))
    assert page.opening.bar._bar.value() == 500


def test_a_failure_leaves_the_model_there_was(
    page: ModelPage, calls: RecordedCalls, opened: OpenedModel, reports: list[Any]
) -> None:
    open_as(page, calls, opened)
    page.open_model("a/b")
    error = HubUnreachable("The Hub did not answer.")
    calls.of(OpenModel)[-1].on_failure(error)
    assert page.details.isVisible()
    assert page.context.draft.model is opened
    assert reports[-1][0] is error


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (HubUnreachable("The Hub did not answer."), "Try again"),
        (ChildDied("The process ended."), "Try again"),
        (HubUnreachable("a/b is gated: its terms must be accepted first."), "Open model page"),
        (MissingDependency("Not installed.", "Install it with: x"), None),
    ],
)
def test_the_remedy_fits_the_failure(
    page: ModelPage, calls: RecordedCalls, reports: list[Any], error: BitwrightError, remedy: str | None
) -> None:
    page.open_model("a/b")
    calls.started[0].on_failure(error)
    offered = reports[-1][1]
    assert (offered.text if offered else None) == remedy


def test_what_the_hub_says_of_a_gated_model_leads_to_its_page(page: ModelPage) -> None:
    """The page tells it by a word of the message, which is written elsewhere."""
    from huggingface_hub.errors import GatedRepoError

    from core.hub.download import explain

    gated = explain("a/b", GatedRepoError.__new__(GatedRepoError))
    offered = page._remedy("a/b", gated)
    assert offered is not None
    assert offered.text == "Open model page"


def test_a_folder_that_is_gone_can_be_taken_off_the_list(
    page: ModelPage, calls: RecordedCalls, reports: list[Any]
) -> None:
    page.context.state.add_recent("/gone/model")
    page.open_model("/gone/model")
    calls.started[0].on_failure(ModelNotFound("There is nothing at /gone/model."))
    reports[-1][1].act()
    assert page.context.state.recent == []
    assert page.picker.rows() == ()


def test_try_again_tries_again(page: ModelPage, calls: RecordedCalls, reports: list[Any]) -> None:
    page.open_model("a/b")
    calls.started[0].on_failure(HubUnreachable("The Hub did not answer."))
    reports[-1][1].act()
    assert len(calls.of(OpenModel)) == 2


@pytest.mark.parametrize(
    ("method", "asked"), [("open_folder", "getExistingDirectory"), ("open_gguf", "getOpenFileName")]
)
def test_choosing_from_the_disk(
    page: ModelPage, calls: RecordedCalls, monkeypatch: pytest.MonkeyPatch, method: str, asked: str
) -> None:
    starts: list[str] = []

    def choose(_parent: QWidget, _title: str, start: str, *_kinds: str) -> Any:
        starts.append(start)
        return "/models/mine" if method == "open_folder" else ("/models/mine", "")

    monkeypatch.setattr(QFileDialog, asked, choose)
    getattr(page, method)()
    assert calls.started[0].request.model == "/models/mine"
    getattr(page, method)()
    assert starts == [str(Path.home()), "/models"]


def test_choosing_nothing_opens_nothing(page: ModelPage, calls: RecordedCalls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: "")
    page.open_folder()
    assert calls.started == []


# --- the real service ---


def test_a_folder_opens_for_real(qtbot: QtBot, context: Any, opened: OpenedModel) -> None:
    page = ModelPage(context)
    qtbot.addWidget(page)
    page.resize(880, 580)
    page.show()
    page.open_model(opened.folder)
    qtbot.waitUntil(lambda: context.draft.model is not None, timeout=30_000)
    assert context.draft.model.tree.blocks == opened.tree.blocks
    qtbot.waitUntil(lambda: page.details.card.toPlainText() == "This model has no model card.", timeout=30_000)


def test_a_folder_that_is_none_fails_for_real(qtbot: QtBot, context: Any, reports: list[Any], tmp_path: Path) -> None:
    page = ModelPage(context)
    qtbot.addWidget(page)
    page.show()
    page.open_model(str(tmp_path))
    qtbot.waitUntil(lambda: bool(reports), timeout=30_000)
    assert isinstance(reports[0][0], ModelNotFound)
    assert page.welcome.isVisible()
