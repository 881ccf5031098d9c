"""Answers and conversations."""

from __future__ import annotations

from pathlib import Path

import pytest

from core import api
from core.errors import BadInput
from core.events import Event, Result, Token


def test_a_prompt_is_answered_in_tokens_and_a_result(tiny: Path, place: Path) -> None:
    events = list(api.chat(tiny, "hello", max_tokens=8, device="cpu"))
    result = events[-1]
    assert isinstance(result, Result)
    pieces = [event.text for event in events if isinstance(event, Token)]
    assert result.values["text"] == "".join(pieces)
    assert 1 <= result.values["tokens"] <= 8


def test_a_conversation_keeps_its_messages(tiny: Path, place: Path) -> None:
    from core.inference.generation.chat import Sampling

    talk = api.open_chat(tiny, "cpu")
    messages = api.conversation("hello", system="Be brief.")
    assert [message["role"] for message in messages] == ["system", "user"]
    seen: list[Event] = []
    said = api.answer(talk, messages, Sampling(max_tokens=4), seen.append)
    again = api.answer(talk, messages, Sampling(max_tokens=4), lambda _event: None)
    assert said == again == "".join(event.text for event in seen if isinstance(event, Token))


def test_a_value_out_of_range_is_found_before_the_model_is_loaded(tiny: Path, place: Path) -> None:
    with pytest.raises(BadInput, match="max tokens"):
        next(api.chat(tiny, "hello", max_tokens=0))
