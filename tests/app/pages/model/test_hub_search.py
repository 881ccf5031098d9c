"""Search while typing: one call at a time, late results dropped, offline and failed states."""

from __future__ import annotations

from typing import Any

import pytest
from pytestqt.qtbot import QtBot

from app.pages.model.hub_search import HubSearch, Query
from core.errors import HubUnreachable
from core.service.messages import SearchHub
from tests.app.hub_records import QWEN, answer
from tests.app.recorded_calls import RecordedCalls

FOUND = answer(QWEN)


@pytest.fixture
def search(qtbot: QtBot, calls: RecordedCalls) -> HubSearch:
    made: Any = HubSearch(calls)  # type: ignore[arg-type]
    return made


def names(search: HubSearch) -> list[str]:
    return [found.id for found in search.models]


def asked(search: HubSearch, text: str = "qwen") -> None:
    search.search(Query(text))
    search.ask()


def test_fast_typing_asks_once(qtbot: QtBot, search: HubSearch, calls: RecordedCalls) -> None:
    for text in ("qw", "qwe", "qwen", "qwen3"):
        search.search(Query(text, sort="likes", hide_quantized=False))
    assert (search.state, calls.started) == ("waiting", [])
    qtbot.waitUntil(lambda: bool(calls.started))
    assert search.state == "searching"
    assert [call.request for call in calls.of(SearchHub)] == [SearchHub("qwen3", 50, "likes", hide_quantized=False)]


def test_one_letter_asks_nothing(search: HubSearch, calls: RecordedCalls) -> None:
    asked(search, "q")
    assert (search.state, calls.started) == ("idle", [])


def test_a_new_question_stops_the_old_one_and_ignores_its_answer(search: HubSearch, calls: RecordedCalls) -> None:
    asked(search)
    search.search(Query("llama"))
    assert calls.started[0].stopped
    calls.started[0].on_success(FOUND)
    assert (search.state, search.models) == ("waiting", [])


def test_results_stay_while_the_next_ones_are_on_their_way(search: HubSearch, calls: RecordedCalls) -> None:
    asked(search)
    calls.started[0].on_success(FOUND)
    assert (search.state, names(search)) == ("found", ["Qwen/Qwen3-0.6B"])
    asked(search, "llama")
    assert (search.state, names(search)) == ("searching", ["Qwen/Qwen3-0.6B"])


def test_an_emptied_field_empties_the_results(search: HubSearch, calls: RecordedCalls) -> None:
    asked(search)
    calls.started[0].on_success(FOUND)
    search.search(Query(""))
    assert (search.state, search.models) == ("idle", [])


def test_offline_is_a_state_of_its_own(search: HubSearch, calls: RecordedCalls) -> None:
    asked(search)
    calls.started[0].on_success(answer(QWEN, offline=True))
    assert (search.state, names(search)) == ("offline", ["Qwen/Qwen3-0.6B"])


def test_a_failure_is_kept_until_the_next_try(search: HubSearch, calls: RecordedCalls) -> None:
    asked(search)
    error = HubUnreachable("The Hub answered with status 500.")
    calls.started[0].on_failure(error)
    assert (search.state, search.error) == ("failed", error)
    search.ask()
    assert (search.state, search.error) == ("searching", None)
    assert calls.started[1].request == calls.started[0].request


def test_stop_ends_the_wait_and_the_call(search: HubSearch, calls: RecordedCalls) -> None:
    asked(search)
    search.stop()
    assert calls.started[0].stopped
    calls.started[0].on_success(FOUND)
    assert (search.state, search.models) == ("stopped", [])


def test_the_same_question_is_not_asked_twice(search: HubSearch, calls: RecordedCalls) -> None:
    asked(search)
    calls.started[0].on_success(FOUND)
    search.search(Query("qwen"))
    assert search.state == "found"
