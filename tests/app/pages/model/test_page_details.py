"""The Model page with a model: facts, estimate, card and download."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PySide6.QtCore import Qt, QUrl
from PySide6.QtGui import QDesktopServices
from PySide6.QtWidgets import QPushButton, QWidget
from pytestqt.qtbot import QtBot

from app.pages.model.page import ModelPage
from core.errors import HubUnreachable
from core.events import Progress
from core.hub.records import ModelCard
from core.inference.machine import Device, Machine
from core.service.messages import DownloadModel, FetchCard, ModelFolder, SearchHub
from tests.app.find import find
from tests.app.hub_records import QWEN, answer
from tests.app.pages.model.opened_page import open_as, shown_page, text_of
from tests.app.recorded_calls import RecordedCalls

if TYPE_CHECKING:
    from app.shared.context import Context
    from app.shared.models.opened import OpenedModel


@pytest.fixture
def page(qtbot: QtBot, context: Context, calls: RecordedCalls) -> ModelPage:
    return shown_page(qtbot, context, calls)


@pytest.fixture
def distant(opened: OpenedModel) -> OpenedModel:
    """A model that is only on the Hub."""
    return replace(opened, name="a/b", label="a/b", origin="hub", folder="", download_bytes=2_000_000_000)


def refused(opened: OpenedModel) -> OpenedModel:
    return replace(opened, tree=replace(opened.tree, refusal="The model is a mixture of experts."))


# --- display ---


def test_a_model_chosen_elsewhere_is_shown(page: ModelPage, opened: OpenedModel) -> None:
    page.context.draft.choose(model=opened)
    assert page.details.isVisible()


def test_a_refused_model_says_so_first_and_goes_no_further(
    page: ModelPage, calls: RecordedCalls, opened: OpenedModel
) -> None:
    open_as(page, calls, refused(opened))
    assert page.details.overview.refusal.isVisible()
    assert text_of(page, "reason") == "The model is a mixture of experts."
    assert not page.details.overview.bars.isVisible()
    assert not page.next.isEnabled()


def test_a_model_that_is_quantized_already_can_be_converted(
    page: ModelPage, calls: RecordedCalls, opened: OpenedModel, visited: list[str]
) -> None:
    open_as(page, calls, refused(opened))
    button = find(page, QPushButton, "convert_it")
    assert button.isHidden()
    config = {**opened.tree.config, "quantization_config": {"quant_method": "gptq"}}
    open_as(page, calls, replace(refused(opened), name="o/small", tree=replace(refused(opened).tree, config=config)))
    button.click()
    assert (visited, page.context.state.value("convert/source", "")) == (["convert"], "o/small")


def test_a_sound_model_after_a_refused_one_has_its_bars_back(
    page: ModelPage, calls: RecordedCalls, opened: OpenedModel
) -> None:
    open_as(page, calls, replace(refused(opened), name="x/y"))
    open_as(page, calls, opened)
    assert not page.details.overview.refusal.isVisible()
    assert page.details.overview.bars.isVisible()


def test_the_estimate_names_what_it_is_for(page: ModelPage, calls: RecordedCalls, opened: OpenedModel) -> None:
    open_as(page, calls, opened)
    assert text_of(page, "basis") == "recipe quick, 4 bits, on this machine"
    assert text_of(page, "time") == "Measuring this machine"
    page.context.draft.set_machine(Machine((Device("cpu", "cpu", "A CPU", 0, 0),), {"cpu": 1e9}, "cpu"))
    assert text_of(page, "basis") == "recipe quick, 4 bits, on A CPU"
    assert text_of(page, "time") != "Measuring this machine"


def test_a_hidden_page_catches_up_when_it_is_shown(
    page: ModelPage, calls: RecordedCalls, opened: OpenedModel, qtbot: QtBot
) -> None:
    page.hide()
    page.context.draft.choose(model=opened)
    assert calls.of(FetchCard) == []
    page.show()
    assert text_of(page, "disk_amounts") != ""
    assert len(calls.of(FetchCard)) == 1


# --- the card ---


def test_the_card_is_fetched_and_shown(page: ModelPage, calls: RecordedCalls, opened: OpenedModel) -> None:
    open_as(page, calls, opened)
    call = calls.of(FetchCard)[-1]
    assert call.request.model == opened.name
    call.on_success(ModelCard("# The card\n\nIts text.", "mit"))
    assert "Its text." in page.details.card.toPlainText()
    assert text_of(page, "license") == "mit"


def test_the_license_of_the_search_result_will_do(
    page: ModelPage, calls: RecordedCalls, opened: OpenedModel, qtbot: QtBot
) -> None:
    page.picker.field.setText("qwen")
    qtbot.waitUntil(lambda: bool(calls.of(SearchHub)))
    calls.of(SearchHub)[0].on_success(answer(QWEN))
    open_as(page, calls, replace(opened, name=QWEN.id))
    calls.of(FetchCard)[-1].on_success(ModelCard(""))
    assert text_of(page, "license") == "apache-2.0"
    assert page.details.card.toPlainText() == "This model has no model card."


def test_a_card_that_does_not_come_is_no_alarm(
    page: ModelPage, calls: RecordedCalls, opened: OpenedModel, reports: list[Any]
) -> None:
    open_as(page, calls, opened)
    calls.of(FetchCard)[-1].on_failure(HubUnreachable("The Hub did not answer."))
    assert "could not be loaded. The Hub did not answer." in page.details.card.toPlainText()
    assert reports == []


def test_the_card_of_a_model_left_behind_is_not_shown(
    page: ModelPage, calls: RecordedCalls, opened: OpenedModel
) -> None:
    open_as(page, calls, replace(opened, name="a/b"))
    open_as(page, calls, replace(opened, name="c/d"))
    first, second = calls.of(FetchCard)
    assert first.stopped
    second.on_success(ModelCard("second"))
    first.on_success(ModelCard("first"))
    assert page.details.card.toPlainText() == "second"


def test_a_link_in_the_card_opens_in_the_browser(
    page: ModelPage, calls: RecordedCalls, distant: OpenedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses: list[str] = []
    monkeypatch.setattr(QDesktopServices, "openUrl", lambda url: addresses.append(url.toString()))
    open_as(page, calls, distant)
    calls.of(FetchCard)[-1].on_success(ModelCard("[more](docs/more.md)"))
    page.details.card.anchorClicked.emit(QUrl("docs/more.md"))
    assert addresses == ["https://huggingface.co/a/b/blob/main/docs/more.md"]


# --- the download ---


def offer(page: ModelPage) -> QPushButton:
    return find(page, QPushButton, "download")


def test_a_model_that_is_here_offers_no_download(page: ModelPage, calls: RecordedCalls, opened: OpenedModel) -> None:
    open_as(page, calls, opened)
    assert not offer(page).isVisible()


def test_the_download_counts_as_disk(page: ModelPage, calls: RecordedCalls, distant: OpenedModel) -> None:
    open_as(page, calls, distant)
    assert offer(page).text() == "Download now (2 GB)"
    assert text_of(page, "disk_amounts").startswith("2")
    assert page.next.isEnabled()


def test_a_download_shows_its_way_and_makes_the_model_local(
    page: ModelPage, calls: RecordedCalls, distant: OpenedModel
) -> None:
    open_as(page, calls, distant)
    offer(page).click()
    call = calls.of(DownloadModel)[0]
    transfer = page.details.overview.transfer
    assert call.request.model == "a/b"
    assert transfer.isVisible()
    assert not offer(page).isVisible()
    call.on_event(Progress(0.25, 30, 40))
    assert text_of(transfer, "figures").startswith("500 MB of 2 GB")
    call.on_success(ModelFolder(Path("/cache/a--b")))
    assert not transfer.isVisible()
    model = page.context.draft.model
    assert model is not None
    assert (model.folder, model.download_bytes) == ("/cache/a--b", 0)


def test_a_cancelled_download_is_offered_again(page: ModelPage, calls: RecordedCalls, distant: OpenedModel) -> None:
    open_as(page, calls, distant)
    offer(page).click()
    page.details.overview.transfer.cancel.click()
    assert calls.of(DownloadModel)[0].stopped
    assert offer(page).isVisible()
    calls.of(DownloadModel)[0].on_event(Progress(0.9, 1, 2))  # was on its way
    assert not page.details.overview.transfer.isVisible()


def test_a_failed_download_can_be_tried_again(
    page: ModelPage, calls: RecordedCalls, distant: OpenedModel, reports: list[Any]
) -> None:
    open_as(page, calls, distant)
    offer(page).click()
    calls.of(DownloadModel)[0].on_failure(HubUnreachable("The Hub did not answer."))
    assert offer(page).isEnabled()
    reports[-1][1].act()
    assert len(calls.of(DownloadModel)) == 2


def test_a_second_download_waits_for_the_first(page: ModelPage, calls: RecordedCalls, distant: OpenedModel) -> None:
    open_as(page, calls, distant)
    offer(page).click()
    open_as(page, calls, replace(distant, name="c/d"))
    assert page.details.overview.transfer.isVisible()
    assert offer(page).isVisible()
    assert not offer(page).isEnabled()
    calls.of(DownloadModel)[0].on_success(ModelFolder(Path("/cache/a--b")))
    assert offer(page).isEnabled()
    model = page.context.draft.model
    assert model is not None
    assert model.folder == ""


# --- for everybody ---


def test_every_control_has_a_name(page: ModelPage, calls: RecordedCalls, distant: OpenedModel) -> None:
    open_as(page, calls, distant)
    unnamed = [
        widget
        for widget in page.findChildren(QWidget)
        if widget.focusPolicy() != Qt.FocusPolicy.NoFocus
        and not widget.accessibleName()
        and not (getattr(widget, "text", str)() or "")
    ]
    assert [(type(widget).__name__, widget.objectName()) for widget in unnamed] == []


def test_it_fits_beside_the_rail(page: ModelPage, calls: RecordedCalls, distant: OpenedModel) -> None:
    open_as(page, calls, replace(distant, label="a-very-long-owner-name/" + "Model-With-A-Very-Long-Name" * 3))
    assert page.minimumSizeHint().width() <= 880
    assert page.minimumSizeHint().height() <= 580
