"""The choice of the backend: offered, forced and stored values, and reasons against the others."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QComboBox, QLabel, QToolButton
from pytestqt.qtbot import QtBot

from app.pages.chat.backend_box import BackendBox, words_of
from app.pages.chat.page import ChatPage
from app.state import State
from app.theme import Theme
from core.service.messages import LoadModel
from tests.app.find import find
from tests.app.pages.chat.parts import ROWS, asked, button, label_of
from tests.app.scripted_session import ANSWERED, OPENED, ScriptedCalls


@pytest.fixture
def box(theme: Theme, qtbot: QtBot, state: State) -> BackendBox:
    box = BackendBox(theme, state)
    qtbot.addWidget(box)
    box.show()
    return box


@pytest.fixture
def state(tmp_path_factory: pytest.TempPathFactory) -> State:
    return State(tmp_path_factory.mktemp("state") / "window.ini")


def offered(box: BackendBox) -> list[str]:
    picker = find(box, QComboBox, "chat_backend_pick")
    return [picker.itemText(place) for place in range(picker.count())]


def pick(box: BackendBox, name: str) -> None:
    picker = find(box, QComboBox, "chat_backend_pick")
    picker.setCurrentIndex(picker.findData(name))
    picker.activated.emit(picker.currentIndex())


def test_what_can_be_used_is_offered(box: BackendBox) -> None:
    box.set_rows(ROWS)
    assert offered(box) == ["Automatic", "Native kernels", "Portable torch"]


def test_a_forced_one_is_remembered(box: BackendBox, theme: Theme, qtbot: QtBot, state: State) -> None:
    box.set_rows(ROWS)
    with qtbot.waitSignal(box.picked) as told:
        pick(box, "portable")
    assert told.args == ["portable"]
    other = BackendBox(theme, state)
    qtbot.addWidget(other)
    assert other.current == "portable"


def test_a_remembered_one_that_is_not_here_says_so(theme: Theme, qtbot: QtBot, state: State) -> None:
    state.set_value("chat/backend", "marlin")
    box = BackendBox(theme, state)
    qtbot.addWidget(box)
    box.set_rows(ROWS)
    assert offered(box)[-1] == "marlin (not available)"


def test_the_reasons_are_folded_and_open(box: BackendBox) -> None:
    box.set_rows(ROWS)
    fold = find(box, QToolButton, "why_not")
    assert fold.text() == "Other backends (2)"
    fold.click()
    reason = find(box, QLabel, "why_ark")
    assert (reason.isVisible(), reason.text()) == (True, "It is not installed.")


def test_the_install_command_can_be_copied(box: BackendBox) -> None:
    box.set_rows(ROWS)
    find(box, QToolButton, "why_not").click()
    find(box, QToolButton, "copy_ark").click()
    assert QGuiApplication.clipboard().text() == "pip install auto-round-lib"


def test_layers_are_told_by_what_computes_them() -> None:
    rows = (ROWS[0], replace(ROWS[1], layers=1))
    assert words_of(rows) == "Native kernels (14 layers), Portable torch (1 layer)"


def test_of_a_model_without_counted_layers_the_runner_is_told() -> None:
    assert words_of([replace(ROWS[0], layers=0)], "native") == "Native kernels"


# --- on the page ---


def test_a_forced_one_goes_with_the_load(page: ChatPage, calls: ScriptedCalls) -> None:
    page.single.panel.backend.set_rows(ROWS)
    pick(page.single.panel.backend, "portable")
    button(page, "load").click()
    assert calls.last.request.backend == "portable"


def test_another_one_loads_the_model_again_and_keeps_the_conversation(page: ChatPage, calls: ScriptedCalls) -> None:
    asked(page, calls)
    calls.last.succeed(ANSWERED, tokens=3)
    page.single.panel.backend.set_rows(ROWS)
    pick(page.single.panel.backend, "portable")
    assert calls.sessions[0].closed
    assert isinstance(calls.last.request, LoadModel)
    assert len(page.single.conversation) == 2


def test_a_device_that_fell_back_says_so(page: ChatPage, calls: ScriptedCalls) -> None:
    button(page, "load").click()
    calls.last.succeed(OPENED, device_note="cuda:0 is not here; the CPU computes.")
    assert label_of(page, "chat_device_note") == "cuda:0 is not here; the CPU computes."
