"""The second line of a conversation in the list."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from app.pages.chat.conversations.drawer_list import detail_of
from app.pages.chat.conversations.files import ConversationSummary

NOW = datetime(2026, 11, 22, 12, 0)  # noqa: DTZ001 - the user's own time


@pytest.mark.parametrize(
    ("ago", "words"),
    [
        (timedelta(hours=1), "tiny, today 11:00"),
        (timedelta(days=1), "tiny, yesterday 12:00"),
        (timedelta(days=30), "tiny, 23 Oct"),
        (timedelta(days=400), "tiny, 18 Oct 2025"),
    ],
)
def test_the_day_is_told_as_people_say_it(ago: timedelta, words: str) -> None:
    summary = ConversationSummary("x", "hello", "tiny", (NOW - ago).timestamp(), 2, "")
    assert detail_of(summary, NOW) == words


def test_without_a_model_there_is_only_the_day() -> None:
    assert detail_of(ConversationSummary("x", "hello", "", NOW.timestamp(), 2, ""), NOW) == "today 12:00"
