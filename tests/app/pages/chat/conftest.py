"""Fixtures of a chat page with a scripted session and a scripted run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot

    from app.pages.chat.page import ChatPage
    from app.shared.context import Context
    from tests.app.pages.chat.parts import PlayedRuns
    from tests.app.scripted_session import ScriptedCalls


@pytest.fixture(autouse=True)
def _built_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build all messages in one iteration of the event loop, however slow the machine is."""
    from app.pages.chat import conversation_view

    monkeypatch.setattr(conversation_view, "_BUILD_SECONDS", 60.0)


@pytest.fixture
def calls() -> ScriptedCalls:
    from tests.app.scripted_session import ScriptedCalls

    return ScriptedCalls()


@pytest.fixture
def runs(qtbot: QtBot) -> PlayedRuns:
    from tests.app.pages.chat.parts import PlayedRuns

    return PlayedRuns()


@pytest.fixture
def surroundings(context: Context, calls: ScriptedCalls, runs: PlayedRuns) -> Context:
    from tests.app.pages.chat.parts import played

    return played(context, calls, runs)


@pytest.fixture
def page(qtbot: QtBot, surroundings: Context) -> ChatPage:
    from tests.app.pages.chat.parts import shown_page

    return shown_page(qtbot, surroundings)
